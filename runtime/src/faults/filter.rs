//! The filter: a program that the kernel runs at each call, of which it allows most. See seccomp(2) and the kernel's seccomp_filter.rst.
//!
//! What it says of a call that is not watched depends on nothing but the call's number, so that kernels since 5.11 don't run it for those.

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF,
    sock_filter,
};

use super::calls::Calls;
use crate::sys::seccomp::Cookie;

/// The architecture of this program, as linux/audit.h numbers it.
pub(crate) const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

/// That of programs with 32 bits that run here, and their brk(2), which each makes as it begins.
const I386: u32 = 0x4000_0003;
const I386_BRK: u32 = 45;

/// From here on, numbers are those of x32 programs.
const X32: u32 = 0x4000_0000;

// Where things are in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const SIXTH_LOW: u32 = 16 + 5 * 8;
const SIXTH_HIGH: u32 = SIXTH_LOW + 4;

fn load(at: u32) -> sock_filter {
    sock_filter { code: (BPF_LD | BPF_W | BPF_ABS) as u16, jt: 0, jf: 0, k: at }
}

fn result(value: u32) -> sock_filter {
    sock_filter { code: (BPF_RET | BPF_K) as u16, jt: 0, jf: 0, k: value }
}

/// Skips so many instructions if what was loaded compares.
fn skip(compare: u32, value: u32, if_so: u8, if_not: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | compare | BPF_K) as u16, jt: if_so, jf: if_not, k: value }
}

/// Has watched calls wait for an answer unless they have the cookie.
pub(super) fn build(watched: Calls, cookie: Cookie) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCH),
        skip(BPF_JEQ, ARCHITECTURE, 5, 0),
        // Other programs have other numbers for their calls: all of these are allowed. But it is seen that they run.
        skip(BPF_JEQ, I386, 0, 3),
        load(NUMBER),
        skip(BPF_JEQ, I386_BRK, 0, 1),
        result(SECCOMP_RET_USER_NOTIF),
        result(SECCOMP_RET_ALLOW),
        load(NUMBER),
        skip(BPF_JGE, X32, 0, 1),
        result(SECCOMP_RET_ALLOW),
    ];
    // Each call has two instructions of its own, since a jump goes no further than 255.
    for number in watched.numbers() {
        let is_watched = [
            load(SIXTH_LOW),
            skip(BPF_JEQ, cookie as u32, 0, 2),
            load(SIXTH_HIGH),
            skip(BPF_JEQ, (cookie >> 32) as u32, 1, 0),
            result(SECCOMP_RET_USER_NOTIF),
            result(SECCOMP_RET_ALLOW),
        ];
        program.push(skip(BPF_JEQ, number, 0, is_watched.len() as u8));
        program.extend(is_watched);
    }
    program.push(result(SECCOMP_RET_ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do.
    fn run(program: &[sock_filter], number: u32, arch: u32, sixth: u64) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let instruction = program[at];
            at += 1;
            match u32::from(instruction.code) {
                code if code == BPF_RET | BPF_K => return instruction.k,
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    loaded = match instruction.k {
                        NUMBER => number,
                        ARCH => arch,
                        SIXTH_LOW => sixth as u32,
                        SIXTH_HIGH => (sixth >> 32) as u32,
                        other => panic!("{other}"),
                    };
                }
                code => {
                    let is_so = match code & 0xf0 {
                        BPF_JEQ => loaded == instruction.k,
                        BPF_JGE => loaded >= instruction.k,
                        other => panic!("{other}"),
                    };
                    at += usize::from(if is_so { instruction.jt } else { instruction.jf });
                }
            }
        }
    }

    #[test]
    fn watched_calls_wait() {
        const COOKIE: u64 = 0x0123_4567_89ab_cdef;
        let watched = Calls::of("read fsync futex").watched_with();
        let program = build(watched, COOKIE);
        assert!(program.len() < 4096, "the kernel takes no more");
        for number in 0..600 {
            let expected = if watched.has(number) { SECCOMP_RET_USER_NOTIF } else { SECCOMP_RET_ALLOW };
            for sixth in [0, COOKIE & 0xffff_ffff, COOKIE ^ 1, COOKIE ^ 1 << 63] {
                assert_eq!(run(&program, number, ARCHITECTURE, sixth), expected, "{number}");
            }
            assert_eq!(run(&program, number, ARCHITECTURE, COOKIE), SECCOMP_RET_ALLOW);
            assert_eq!(run(&program, number | X32, ARCHITECTURE, 0), SECCOMP_RET_ALLOW);
            assert_eq!(run(&program, number, 7, 0), SECCOMP_RET_ALLOW);
            let expected = if number == I386_BRK { SECCOMP_RET_USER_NOTIF } else { SECCOMP_RET_ALLOW };
            assert_eq!(run(&program, number, I386, 0), expected, "{number}");
        }
    }
}
