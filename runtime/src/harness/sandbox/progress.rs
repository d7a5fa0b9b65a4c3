//! How far a sandbox has come, and what is to be done after each event. [`Sandbox`](super::Sandbox) sees the events, and does what is to be
//! done: nothing in here makes a system call.

use crate::spec::Test;

/// What is to be done after something has come over the frame socket.
#[derive(Debug)]
pub(super) enum Next {
    /// There may be more to read.
    Read,
    /// Nothing more is read before the clock has been looked at.
    Wait,
    /// The sandbox is ready for this test.
    HandOver(&'static Test),
    /// The watching ends.
    End(Ending),
}

/// Why the watching of a sandbox ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The last frame has come.
    Over,
    /// The last frame has come. Processes are left, or what is left is wanted.
    Left,
    /// The time is up.
    Late,
    /// The time is up, and init was not born.
    Unanswered,
    /// Init will never be born.
    Unborn,
    /// No last frame will come.
    Silent,
}

/// How far a sandbox has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The test that it is to run, until that is handed over.
    test: Option<&'static Test>,
    /// Whether it has been handed over.
    has_begun: bool,
    is_born: bool,
    /// Whether the zygote is dead, or init once that is born.
    is_dead: bool,
}

impl Progress {
    /// The sandbox is to run `test`. Nothing is read from it before this.
    pub(super) fn begin(&mut self, test: &'static Test) {
        self.test = Some(test);
    }

    /// Init is born, and this process can end it. No body begins before.
    pub(super) fn born(&mut self, has_copy: bool) -> Next {
        self.is_born = true;
        // If the zygote has died, init was born before that.
        self.is_dead = false;
        if has_copy { Next::Read } else { self.ready() }
    }

    /// The sandbox is ready for its test. If its root is a copy, this process has that by now: it knows only of changes that come after this.
    pub(super) fn ready(&mut self) -> Next {
        self.test.take().map_or(Next::Read, Next::HandOver)
    }

    /// The sandbox has been sent its test.
    pub(super) fn handed_over(&mut self) {
        self.has_begun = true;
    }

    /// Whether its test may have begun. If not, the test can run in another sandbox.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The last frame has come. `stays`: init waits.
    pub(super) fn ended(&self, stays: bool) -> Next {
        Next::End(if stays { Ending::Left } else { Ending::Over })
    }

    /// The zygote is dead, or init once that is born. What was sent before may still be read.
    pub(super) fn died(&mut self) {
        self.is_dead = true;
    }

    /// All has been read.
    pub(super) fn nothing_more(&self) -> Next {
        if self.is_dead { Next::End(Ending::Silent) } else { Next::Wait }
    }

    /// All has been read, and nothing can come any more. The zygote lets go of the socket when init, which tells of its birth, has it, or when
    /// there is none. Init holds it to its end, but what is in the sandbox can shut it down for all.
    pub(super) fn closed(&self) -> Next {
        Next::End(if self.is_born || self.is_dead { Ending::Silent } else { Ending::Unborn })
    }

    pub(super) fn time_is_up(&self) -> Ending {
        if self.is_born { Ending::Late } else { Ending::Unanswered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static TEST: Test = Test::PLAIN;

    fn begun() -> Progress {
        let mut progress = Progress::default();
        progress.begin(&TEST);
        progress
    }

    /// One whose init is born, and has its test.
    fn running() -> Progress {
        let mut progress = begun();
        assert!(matches!(progress.born(false), Next::HandOver(_)));
        progress
    }

    fn ending(next: Next) -> Option<Ending> {
        if let Next::End(ending) = next { Some(ending) } else { None }
    }

    #[test]
    fn a_test_is_handed_over_once_when_init_is_born() {
        let mut progress = begun();
        assert!(matches!(progress.nothing_more(), Next::Wait));
        assert!(matches!(progress.born(false), Next::HandOver(_)));
        assert!(matches!(progress.ready(), Next::Read));
        assert!(matches!(progress.nothing_more(), Next::Wait));
    }

    #[test]
    fn a_test_with_a_copy_is_handed_over_when_that_is_made() {
        let mut progress = begun();
        assert!(matches!(progress.born(true), Next::Read));
        assert!(matches!(progress.ready(), Next::HandOver(_)));
    }

    #[test]
    fn an_init_that_was_born_before_the_zygote_died_counts() {
        let mut progress = begun();
        progress.died();
        progress.born(false);
        assert!(matches!(progress.nothing_more(), Next::Wait));
        progress.died();
        assert_eq!(ending(progress.nothing_more()), Some(Ending::Silent));
    }

    #[test]
    fn a_zygote_that_died_bears_no_init() {
        let mut progress = begun();
        progress.died();
        assert_eq!(ending(progress.nothing_more()), Some(Ending::Silent));
        assert_eq!(ending(progress.closed()), Some(Ending::Silent));
    }

    #[test]
    fn a_zygote_that_lives_and_lets_go_of_the_socket_bears_no_init() {
        assert_eq!(ending(begun().closed()), Some(Ending::Unborn));
    }

    #[test]
    fn a_body_may_shut_the_socket_down() {
        assert_eq!(ending(running().closed()), Some(Ending::Silent));
    }

    #[test]
    fn what_was_sent_before_a_death_counts() {
        let mut progress = running();
        progress.died();
        assert_eq!(ending(progress.ended(false)), Some(Ending::Over));
        assert_eq!(ending(progress.ended(true)), Some(Ending::Left));
    }

    #[test]
    fn who_is_late_has_been_born_or_not() {
        assert_eq!(begun().time_is_up(), Ending::Unanswered);
        assert_eq!(running().time_is_up(), Ending::Late);
    }
}
