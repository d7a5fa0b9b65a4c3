//! What was captured is written as others read it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use etherparse::SlicedPacket;
use fastrand::Rng;

use super::frames::{Version, flow};
use super::rounds;
use crate::net::wire::board::{Cause, Way};
use crate::net::wire::capture::{Seen, Tape, marks};
use crate::net::wire::pcapng;

/// What a reader of pcapng finds, which knows nothing of the writer.
#[derive(Debug, Default)]
struct Read {
    comment: String,
    interfaces: Vec<String>,
    /// The interface, the time, the bytes, the comment, and the flags.
    packets: Vec<(u32, u64, Vec<u8>, String, u32)>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let head = word(bytes, 0);
        let (code, length) = (head as u16, (head >> 16) as usize);
        if code == 0 {
            assert_eq!((length, bytes.len()), (0, 4));
            break;
        }
        found.push((code, bytes[4..4 + length].to_vec()));
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
    found
}

fn read(mut file: &[u8]) -> Read {
    let mut read = Read::default();
    let text = |options: &[(u16, Vec<u8>)], wanted: u16| {
        let value = options.iter().find(|(code, _)| *code == wanted).map(|(_, value)| value.clone());
        String::from_utf8(value.unwrap_or_default()).expect("text")
    };
    while !file.is_empty() {
        let (kind, length) = (word(file, 0), word(file, 4) as usize);
        assert!(length % 4 == 0 && word(file, length - 4) as usize == length);
        let body = &file[8..length - 4];
        match kind {
            0x0a0d_0d0a => {
                assert_eq!((word(body, 0), word(body, 4)), (0x1a2b_3c4d, 1));
                read.comment = text(&options(&body[16..]), 1);
            }
            1 => {
                assert_eq!((word(body, 0), word(body, 4)), (1, 0));
                let options = options(&body[8..]);
                assert!(options.contains(&(9, vec![9])));
                read.interfaces.push(text(&options, 2));
            }
            6 => {
                let time = u64::from(word(body, 4)) << 32 | u64::from(word(body, 8));
                let (captured, length) = (word(body, 12) as usize, word(body, 16));
                assert_eq!(captured, length as usize);
                let options = options(&body[20 + captured.next_multiple_of(4)..]);
                let flags = options.iter().find(|(code, _)| *code == 2).map(|(_, flags)| word(flags, 0));
                let frame = body[20..20 + captured].to_vec();
                read.packets.push((word(body, 0), time, frame, text(&options, 1), flags.unwrap_or_default()));
            }
            other => panic!("a block of the kind {other:#x}"),
        }
        file = &file[length..];
    }
    read
}

fn written(file: &File) -> Read {
    let mut bytes = Vec::new();
    pcapng::write(file, &mut bytes).expect("write");
    read(&bytes)
}

fn seen(time: u64, port: u16, number: u64, frame: &[u8]) -> Seen {
    Seen { time, port, way: Way::FromHost, lost: None, marks: 0, number, length: frame.len() as u32 }
}

#[test]
fn each_port_is_an_interface_and_what_was_lost_has_a_comment() {
    let (mut tape, file) = Tape::new(1 << 16, 17, &["client.eth0", "server.eth0"], 1_000_000_000).expect("memory");
    let frame = flow(Version::Four, 40000, 53).udp(b"hello");
    tape.record(&seen(5, 0, 1, &frame), &frame);
    tape.record(&Seen { way: Way::ToHost, lost: Some(Cause::Chance), ..seen(6, 1, 1, &frame) }, &frame);
    let marks = marks::DUPLICATED | marks::CORRUPTED;
    tape.record(&Seen { marks, ..seen(7, 0, 2, &frame) }, &frame);
    let read = written(&file);
    assert_eq!(read.comment, "seed 17");
    assert_eq!(read.interfaces, ["client.eth0", "server.eth0"]);
    let known =
        |(port, time, _, comment, flags): &(u32, u64, Vec<u8>, String, u32)| (*port, *time, comment.clone(), *flags);
    let known: Vec<_> = read.packets.iter().map(known).collect();
    let lost = "lost on its way to the host: by chance; number 1 of its flow".to_owned();
    let changed = "sent twice; one bit was changed; number 2 of its flow".to_owned();
    assert_eq!(
        known,
        [(0, 1_000_000_005, String::new(), 2), (1, 1_000_000_006, lost, 1), (0, 1_000_000_007, changed, 2)]
    );
    assert!(read.packets.iter().all(|packet| packet.2 == frame && SlicedPacket::from_ethernet(&packet.2).is_ok()));
}

#[test]
fn the_longest_name_of_a_port_is_whole() {
    let name = format!("{}.{}", "h".repeat(63), "i".repeat(15));
    let (_tape, file) = Tape::new(1 << 12, 1, &[&name], 0).expect("memory");
    assert_eq!(written(&file).interfaces, [name]);
}

#[test]
fn the_oldest_go_and_that_is_said() {
    let (mut tape, file) = Tape::new(1 << 16, 1, &["a"], 0).expect("memory");
    let mut random = Rng::with_seed(1);
    for number in 1..=5000_u64 {
        let frame: Vec<_> = (0..random.usize(14..1514)).map(|_| number as u8).collect();
        tape.record(&seen(number, 0, number, &frame), &frame);
        if number % 500 != 0 {
            continue;
        }
        let read = written(&file);
        let times: Vec<_> = read.packets.iter().map(|packet| packet.1).collect();
        let first = number - times.len() as u64;
        assert_eq!(times, (first + 1..=number).collect::<Vec<_>>());
        assert!(times.len() > 40);
        assert!(read.packets.iter().all(|packet| packet.2.iter().all(|byte| *byte == packet.1 as u8)));
        assert!(read.comment.contains(&format!("The first {first} records are not here")), "{}", read.comment);
    }
}

#[test]
fn a_reader_beside_the_writer_finds_whole_frames() {
    let (mut tape, file) = Tape::new(1 << 14, 1, &["a"], 0).expect("memory");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while last < 20_000 {
                for packet in written(&file).packets {
                    assert!(packet.2.iter().all(|byte| *byte == packet.1 as u8), "{packet:?}");
                    last = packet.1;
                }
            }
        });
        for number in 1.. {
            let frame = vec![number as u8; 14 + (number % 300) as usize];
            tape.record(&seen(number, 0, number, &frame), &frame);
            if reader.is_finished() {
                break;
            }
        }
        reader.join().expect("join");
    });
}

/// The body has the memory too, and may write what it likes.
/// More rounds, if the environment asks for them.
#[test]
fn the_memory_may_be_anything() {
    let mut random = Rng::with_seed(5);
    for _ in 0..300 * rounds() {
        let (mut tape, file) = Tape::new(1 << 12, 1, &["a", "b"], 0).expect("memory");
        let frame = flow(Version::Six, 1, 2).udp(&[7; 100]);
        for number in 0..random.u64(..60) {
            tape.record(&seen(number, 0, number, &frame), &frame);
        }
        for _ in 0..random.usize(1..20) {
            let area = random.choice([64, 128, 4096 + 4096]).expect("an area");
            let any = random.u8(..);
            let byte = [*random.choice(&[0, 1, 0x7f, 0xff, any]).expect("a byte")];
            file.write_all_at(&byte, random.u64(..area)).expect("write");
        }
        let _ = pcapng::write(&file, &mut Vec::new());
        // The wire goes on.
        for number in 0..100 {
            tape.record(&seen(number, 1, number, &frame), &frame);
        }
        let _ = pcapng::write(&file, &mut Vec::new());
    }
    // Nobody can take the memory from under the wire.
    let (_tape, file) = Tape::new(1 << 12, 1, &["a"], 0).expect("memory");
    assert!(file.set_len(10).is_err() && file.set_len(1 << 20).is_err());
    let other = File::open("/dev/null").expect("open");
    assert!(pcapng::write(&other, &mut Vec::new()).is_err());
}
