//! What is drawn by lot: it follows from a seed and from what is drawn for, and never from time.

/// Makes each bit depend on all others: the finalizer of splitmix64.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One number for several.
pub(crate) fn hash(numbers: &[u64]) -> u64 {
    let mut hash = numbers.len() as u64;
    for number in numbers {
        hash = mix(hash ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    }
    hash
}

/// One number for some bytes.
#[cfg(feature = "net")]
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        if let Some(place) = word.get_mut(..chunk.len()) {
            place.copy_from_slice(chunk);
        }
        hash = mix(hash ^ u64::from_le_bytes(word));
    }
    hash
}

/// The odds of a probability, out of 2^64; the largest number stands for always.
pub(crate) fn odds(probability: f64) -> u64 {
    // A cast saturates, and takes what is no number for zero.
    (probability * 2_f64.powi(64)) as u64
}
