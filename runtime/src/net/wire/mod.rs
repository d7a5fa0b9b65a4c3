//! The wire: a process beside the body that moves all frames of a laboratory, and decides which are lost, late, doubled or changed.
//!
//! The interfaces of hosts are ends of veth(4) pairs. Their other ends, the ports, lie in a network namespace of their own, the fabric, where
//! nothing connects them. The wire receives each frame there by one packet socket, and sends it on to other ports of its segment.
//!
//! 1. [`Wire::prepare`] makes the socket with its ring, and all memory that the process will need.
//! 2. [`Wire::start`] clones the process. It is init's child, so that the body's `wait` doesn't find it, and has nothing of the body's open.
//! 3. [`Wire::begin`] has it move frames once all hosts are connected. Those that came before are in the ring.
//! 4. The body's process writes settings to shared memory, which the wire reads for each frame. The wire writes counts there, which the body's
//!    process reads.
//! 5. Each frame passes two ports: out of its sender's, and into that of each receiver. Faults are set for each of the two, and `decide` has
//!    what may happen in one.

pub(crate) mod board;
mod capture;
mod chance;
mod decide;
mod flows;
mod forward;
mod matcher;
mod packet;
mod pcapng;
mod queue;
mod table;
#[cfg(test)]
mod tests;
mod trouble;

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl::{set_name, set_timerslack};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, chdir, getpid, setsid};

use board::{Board, Direction, Setting, Way, WireWord};
use capture::Tape;
pub(in crate::net) use chance::odds;
use chance::{hash, hash_bytes};
use decide::Lane;
use forward::{Arena, Outlet, WireProcess};
pub use matcher::Packets;
pub(crate) use trouble::WireTrouble;
use trouble::{Number, Troubles};

use crate::collect::{CollectVec as _, map_both};
use crate::proc::{WIRE, own_kernel};
use crate::sorted::sort;
use crate::sys;
use crate::sys::packet::PacketRing;
use crate::sys::shared::{clone_beside, has_ended};

/// How many frames may wait for the wire to run: at 2 Gbit/s of large frames, 50 ms.
const SLOTS: usize = 1 << 13;

/// What a slot of the ring has beside the frame. The kernel has 66 bytes there, and aligns the rest.
const HEAD_OF_SLOT: usize = 96;

/// How many bytes of frames may wait in the wire, for delays and rates.
const WAITING: usize = 64 << 20;

/// How many bytes of frames are kept for the capture, if nothing else is said.
pub(crate) const CAPTURE: usize = 64 << 20;

/// For how long an answer of the wire is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A port: the outer end of a pair, in the fabric.
#[derive(Clone, Debug)]
pub(crate) struct PortPlan {
    pub(crate) ifindex: i32,
    /// Ports of one segment reach each other.
    pub(crate) segment: u32,
    /// The address of the interface at the other end, the host's. Frames to it go to no other port from the beginning.
    pub(crate) mac: [u8; 6],
    /// The longest packet that the interface takes, in bytes.
    pub(crate) mtu: u32,
    /// For the capture, and for its seed: `client.eth0`.
    pub(crate) name: String,
}

/// What [`Wire::prepare`] has made.
pub(crate) struct Ring {
    ring: PacketRing,
    slots: usize,
    arena: Arena,
}

/// The wire of a laboratory. When it is dropped, the process ends.
#[derive(Debug)]
pub(crate) struct Wire {
    board: Board,
    process: OwnedFd,
    wake: EventFd,
    capture: File,
    troubles: &'static Troubles,
}

impl Wire {
    /// Receives all that comes in at any port from now on. This thread is in the fabric's network namespace. `mtu` is the largest that a
    /// link of the laboratory has or may get. It takes some milliseconds, in which the kernel waits for all processors.
    pub(crate) fn prepare(mtu: u32) -> io::Result<Ring> {
        // The head of a frame, and the tags of two VLANs.
        let frame = usize::try_from(mtu).unwrap_or(usize::MAX).saturating_add(22);
        let slot = frame.saturating_add(HEAD_OF_SLOT).checked_next_power_of_two().unwrap_or(usize::MAX).max(1 << 11);
        // Large slots are fewer: all together have some 16 MiB.
        let slots = (SLOTS << 11).checked_div(slot).unwrap_or_default().clamp(1 << 8, SLOTS);
        let ring = PacketRing::new(slot, slots)?;
        Ok(Ring { ring, slots, arena: Arena::new(WAITING, slot) })
    }

    /// Starts the process, which moves nothing before [`begin`](Self::begin). `capture` is how many bytes of frames are kept.
    pub(crate) fn start(ring: Ring, ports: &[PortPlan], seed: u64, capture: usize) -> io::Result<Self> {
        let Ring { mut ring, slots, mut arena } = ring;
        ports.iter().enumerate().for_each(|(at, port)| arena.learn(port.segment as usize, &port.mac, at));
        let board = Board::new(ports.len())?;
        let troubles = Troubles::get()?;
        let names = ports.iter().map(|port| port.name.as_str()).collect_vec();
        let wall = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
        let wall = u64::try_from(wall.as_nanos()).unwrap_or_default();
        let (tape, capture) = Tape::new(capture, seed, &names, wall.wrapping_sub(sys::now()))?;
        let lane = |port: &PortPlan, way| Lane::new(hash(&[seed, hash_bytes(port.name.as_bytes()), way as u64]));
        let outlet = |port: &PortPlan| Outlet {
            ifindex: port.ifindex,
            segment: port.segment as usize,
            mtu: port.mtu.into(),
            lanes: map_both([Way::FromHost, Way::ToHost], |way| lane(port, way)),
            is_refused: false,
        };
        let segments = ports.iter().map(|port| port.segment as usize + 1).max().unwrap_or_default();
        let of_segment =
            |segment| (0..ports.len()).filter(move |port| ports[*port].segment as usize == segment).collect_vec();
        let mut by_ifindex = ports.iter().enumerate().map(|(at, port)| (port.ifindex, at)).collect_vec();
        sort(&mut by_ifindex);
        let mut process = WireProcess {
            board: &board,
            outlets: ports.iter().map(outlet).collect_vec(),
            segments: (0..segments).map(of_segment).collect_vec(),
            by_ifindex,
            arena,
            tape,
            troubles,
        };
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let body = sys::pidfd_of(getpid())?;
        let is_to_stay = may_overtake();
        let mut kept = [ring.as_fd(), wake.as_fd(), body.as_fd()].map(|fd| fd.as_raw_fd());
        kept.sort_unstable();
        let child = clone_beside(&kept, || {
            // Signals to groups are for the body's.
            let _ = setsid();
            // What the body is in, it may want to unmount.
            let _ = chdir(c"/");
            let _ = set_name(WIRE);
            if is_to_stay {
                stay();
            }
            // Timers are to be exact.
            let _ = set_timerslack(1);
            wait_for_any(&[wake.as_fd(), body.as_fd()]);
            process.run(&mut ring, slots, wake.as_fd(), body.as_fd());
        })?;
        drop(process);
        Ok(Self { board, process: child, wake, capture, troubles })
    }

    /// Has the process move frames from now on, and waits until it does.
    pub(crate) fn begin(&self) -> io::Result<()> {
        self.settle();
        // It may have been killed, or have been refused what it does first.
        if has_ended(self.process.as_fd()) {
            return Err(Errno::ESRCH.into());
        }
        self.troubles.add(Number::Laboratories, 1);
        Ok(())
    }

    /// How many ports there are.
    pub(crate) fn ports(&self) -> usize {
        self.board.ports()
    }

    /// What is set and counted at a port, by its place in the list of them, in one direction.
    pub(crate) fn direction(&self, port: usize, way: Way) -> Direction<'_> {
        self.board.direction(port, way)
    }

    /// Has the wire decide about all frames that were sent until now: what is set afterwards holds for those that follow. Returns at once
    /// if there is no wire any more. If it does not run, it may have been stopped, as by `kill(-1, ..)`: it is resumed, once. If it still
    /// does not answer, this returns after some seconds, and [`WireTrouble::unanswered`] says so.
    pub(crate) fn settle(&self) {
        let asked = self.board.whole(WireWord::Asked).fetch_add(1, Ordering::AcqRel) + 1;
        let _ = self.wake.write(1);
        let is_over = self.wait_for(asked) || {
            let _ = sys::resume(self.process.as_fd());
            self.wait_for(asked)
        };
        if !is_over {
            self.troubles.add(Number::Unanswered, 1);
        }
    }

    /// Waits for an answer. `false` if none comes, though there is a wire.
    fn wait_for(&self, asked: u64) -> bool {
        let begun = Instant::now();
        let mut looks = 0_u32;
        while self.board.whole(WireWord::Answered).load(Ordering::Acquire) < asked {
            looks += 1;
            if looks < 50 {
                thread::yield_now();
            } else if has_ended(self.process.as_fd()) {
                return true;
            } else if begun.elapsed() > PATIENCE {
                return false;
            } else {
                thread::sleep(Duration::from_micros(50));
            }
        }
        true
    }

    /// Sets whether anything passes from one port to another. What is on its way is lost, also if it is due when this is lifted again. To
    /// change several at once, see [`at_once`](Self::at_once).
    pub(crate) fn block(&self, from: usize, to: usize, is_blocked: bool) {
        if is_blocked {
            self.board.set_block(from, to, sys::now());
        } else {
            self.board.lift_block(from, to);
        }
    }

    /// Makes changes, for all frames that are sent from now on, and for no other: when this returns, no frame is left that was decided about
    /// without them.
    pub(crate) fn at_once<T>(&self, change: impl FnOnce(&Self) -> T) -> T {
        self.settle();
        let result = change(self);
        self.settle();
        result
    }

    /// Has everything pass again that was blocked or cut.
    pub(crate) fn heal(&self) {
        self.settle();
        for from in 0..self.ports() {
            (0..self.ports()).for_each(|to| self.block(from, to, false));
            [Way::FromHost, Way::ToHost].into_iter().for_each(|way| self.direction(from, way).set(Setting::Cut, 0));
        }
    }

    /// Writes all that is known of frames to a file of pcapng.
    pub(crate) fn capture(&self, path: &Path) -> io::Result<()> {
        self.settle();
        pcapng::write(&self.capture, &mut BufWriter::new(File::create(path)?))
    }

    /// The memory of the capture: [`write_capture`] makes a file of it, in any process that has it, also when all others are gone.
    pub(crate) fn capture_file(&self) -> BorrowedFd<'_> {
        self.capture.as_fd()
    }

    /// The memory of what went wrong with this wire, and with those of all laboratories of the test.
    pub(crate) fn trouble_file(&self) -> BorrowedFd<'_> {
        self.troubles.file()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // In a process that the body has forked, it is not this one's.
        if !sys::is_marked_process() {
            return;
        }
        self.settle();
        // It ends by itself, so that init knows of each that does not. Nobody waits for it here: the kernel takes some ten milliseconds to close
        // the ring. One that somebody has stopped is ended by init.
        self.board.whole(WireWord::Over).store(1, Ordering::Release);
        let _ = self.wake.write(1);
    }
}

/// Whether frames that are sent from one processor may overtake those that were sent from another. Before Linux 6.4, a kernel whose processors are
/// all busy leaves frames to the thread `ksoftirqd` of each processor.
fn may_overtake() -> bool {
    own_kernel().is_none_or(|version| version < (6, 4))
}

/// Has this process stay on the processor that it is on.
fn stay() {
    let mut own = CpuSet::new();
    let _ = sched_getcpu().and_then(|cpu| own.set(cpu)).and_then(|()| sched_setaffinity(Pid::from_raw(0), &own));
}

/// Waits until one of these is readable. Allocates nothing.
fn wait_for_any(fds: &[BorrowedFd<'_>; 2]) {
    let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
}

/// Writes what was captured, to what becomes a file of pcapng. `capture` is what [`Wire::capture_file`] refers to.
pub(crate) fn write_capture(capture: &File, out: &mut impl io::Write) -> io::Result<()> {
    pcapng::write(capture, out)
}
