//! The recovery of a stalled radio: one that is associated, to whatever it believes is an access point, and hears nothing.
//!
//! ```text
//!          gateway silent for long         wait over              wait over          wait over
//!   Calm --------------------> Reassociate --------> Interface --------> Driver --------> Reboot, or Interface again
//!     ^                             |                   |                  |                   |
//!     +------ the gateway answers, or it is another network -------------+-------------------+
//! ```
//!
//! A silent gateway is no stalled radio by itself: it may be off, or answer nobody's ARP. So an attempt is made only after the
//! gateway was alive in this network; patience is longer, and the end of the ladder nearer, as long as anybody else is heard; the
//! waits double; and the machine is not rebooted for a gateway that it has not seen alive since it was started, which bounds
//! reboots to one for each time a gateway goes away.

use std::time::{Duration, Instant};

use super::words::Stage;
use crate::engine::settings;

/// How long a gateway that was alive may be silent while nothing else is heard. Its host is asked several times by then.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same while others are heard: firmware that drops the answers to our questions is rare, a router being restarted is not.
const PATIENCE_WITH_COMPANY: Duration = Duration::from_secs(180);
/// A frame that was on its way when the gateway fell silent is no company.
const GRACE: Duration = Duration::from_secs(5);
/// How long the first attempt is given; each later one is given twice the time of the one before.
const FIRST_WAIT: Duration = Duration::from_secs(20);
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);
/// The machine is not rebooted before the milder stages had some ten minutes.
const ATTEMPTS_BEFORE_REBOOT: u32 = 5;
/// Nor before it ran for this long.
const SHORTEST_UPTIME: Duration = Duration::from_secs(60 * 60);

/// What the recovery looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signs {
    /// Whether the radio believes itself associated.
    pub(crate) associated: bool,
    /// Since when a gateway that was alive in this network has not answered.
    pub(crate) silent_since: Option<Instant>,
    /// When anything was last heard on the uplink.
    pub(crate) heard: Option<Instant>,
    /// How long the machine has been running.
    pub(crate) uptime: Duration,
    /// How far to go.
    pub(crate) limit: settings::Recovery,
}

/// A recovery under way.
#[derive(Clone, Copy, Debug)]
struct Attempts {
    /// When the gateway fell silent.
    since: Instant,
    made: u32,
    last: Option<Stage>,
    /// When the last attempt's time is over; `None` if nothing is left to try.
    next: Option<Instant>,
}

/// The state of the recovery.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    attempts: Option<Attempts>,
    /// When the gateway's silence becomes too long.
    due: Option<Instant>,
}

impl Recovery {
    /// Returns the stage last tried, while the gateway has not answered.
    pub(crate) fn stage(&self) -> Option<Stage> {
        self.attempts.and_then(|attempts| attempts.last)
    }

    /// The gateway answered, or it is another network.
    pub(crate) fn end(&mut self) {
        *self = Recovery::default();
    }

    /// Returns when `review` is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.attempts {
            Some(attempts) => attempts.next,
            None => self.due,
        }
    }

    /// Looks at the signs and returns the stage to try, if it is time for one.
    pub(crate) fn review(&mut self, signs: Signs, now: Instant) -> Option<Stage> {
        let mut attempts = match self.attempts {
            Some(attempts) => attempts,
            None => self.begin(signs, now)?,
        };
        if attempts.next.is_none_or(|next| next > now) {
            return None;
        }
        let stage = next_stage(attempts, signs);
        attempts.last = stage.or(attempts.last);
        attempts.next = stage.map(|_| now + wait(attempts.made));
        attempts.made += 1;
        self.attempts = Some(attempts);
        stage
    }

    /// Begins a recovery if the silence has lasted too long, or says when it will have.
    fn begin(&mut self, signs: Signs, now: Instant) -> Option<Attempts> {
        self.due = None;
        let since = signs.silent_since.filter(|_| signs.associated)?;
        if signs.limit == settings::Recovery::Off {
            return None;
        }
        let patience = match has_company(since, signs) {
            true => PATIENCE_WITH_COMPANY,
            false => PATIENCE,
        };
        if since + patience > now {
            self.due = Some(since + patience);
            return None;
        }
        Some(Attempts {
            since,
            made: 0,
            last: None,
            next: Some(now),
        })
    }
}

fn has_company(since: Instant, signs: Signs) -> bool {
    signs.heard.is_some_and(|heard| heard > since + GRACE)
}

fn next_stage(attempts: Attempts, signs: Signs) -> Option<Stage> {
    let highest = match signs.limit {
        settings::Recovery::Off => return None,
        settings::Recovery::Reassociate => Stage::Reassociate,
        settings::Recovery::Interface => Stage::Interface,
        settings::Recovery::Driver => Stage::Driver,
        settings::Recovery::Reboot => Stage::Reboot,
    };
    match attempts.made {
        0 => Some(Stage::Reassociate),
        1 => Some(Stage::Interface.min(highest)),
        2 => Some(Stage::Driver.min(highest)),
        _ if has_company(attempts.since, signs) => None,
        made if highest == Stage::Reboot && may_reboot(made, signs) => Some(Stage::Reboot),
        _ => Some(Stage::Interface.min(highest)),
    }
}

fn may_reboot(made: u32, signs: Signs) -> bool {
    made >= ATTEMPTS_BEFORE_REBOOT && signs.uptime >= SHORTEST_UPTIME
}

fn wait(made: u32) -> Duration {
    FIRST_WAIT
        .saturating_mul(1 << made.min(10))
        .min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn signs(start: Instant) -> Signs {
        Signs {
            associated: true,
            silent_since: Some(start),
            heard: None,
            uptime: 24 * HOUR,
            limit: settings::Recovery::Reboot,
        }
    }

    /// Tells when each stage is tried in the first two hours of a silence.
    fn check(change: impl Fn(&mut Signs, Instant), expected: Expect) {
        let start = crate::engine::test_clock();
        let mut signs = signs(start);
        change(&mut signs, start);
        let uptime = signs.uptime;
        let mut recovery = Recovery::default();
        let mut told = String::new();
        let mut now = start;
        while now < start + 2 * HOUR {
            signs.uptime = uptime + (now - start);
            if let Some(stage) = recovery.review(signs, now) {
                told += &format!("{} s: {stage:?}\n", (now - start).as_secs());
            }
            match recovery.next_deadline() {
                Some(next) if next > now => now = next,
                Some(next) => panic!("due {next:?} at {now:?}"),
                None => break,
            }
        }
        expected.assert_eq(&told);
    }

    #[test]
    fn a_radio_that_hears_nothing() {
        check(
            |_, _| {},
            expect![[r#"
                30 s: Reassociate
                50 s: Interface
                90 s: Driver
                170 s: Interface
                330 s: Interface
                650 s: Reboot
                1290 s: Reboot
                2570 s: Reboot
                4370 s: Reboot
                6170 s: Reboot
            "#]],
        );
    }

    #[test]
    fn a_machine_that_started_lately_is_not_rebooted() {
        check(
            |signs, _| signs.uptime = Duration::ZERO,
            expect![[r#"
                30 s: Reassociate
                50 s: Interface
                90 s: Driver
                170 s: Interface
                330 s: Interface
                650 s: Interface
                1290 s: Interface
                2570 s: Interface
                4370 s: Reboot
                6170 s: Reboot
            "#]],
        );
    }

    #[test]
    fn a_silent_gateway_among_others_that_speak() {
        check(
            |signs, start| signs.heard = Some(start + HOUR),
            expect![[r#"
                180 s: Reassociate
                200 s: Interface
                240 s: Driver
            "#]],
        );
    }

    #[test]
    fn as_far_as_is_allowed() {
        check(
            |signs, _| signs.limit = settings::Recovery::Interface,
            expect![[r#"
                30 s: Reassociate
                50 s: Interface
                90 s: Interface
                170 s: Interface
                330 s: Interface
                650 s: Interface
                1290 s: Interface
                2570 s: Interface
                4370 s: Interface
                6170 s: Interface
            "#]],
        );
        check(
            |signs, _| signs.limit = settings::Recovery::Reassociate,
            expect![[r#"
                30 s: Reassociate
                50 s: Reassociate
                90 s: Reassociate
                170 s: Reassociate
                330 s: Reassociate
                650 s: Reassociate
                1290 s: Reassociate
                2570 s: Reassociate
                4370 s: Reassociate
                6170 s: Reassociate
            "#]],
        );
        check(
            |signs, _| signs.limit = settings::Recovery::Off,
            expect![[""]],
        );
    }

    #[test]
    fn nothing_is_tried_without_an_association_or_a_silence() {
        check(|signs, _| signs.associated = false, expect![[""]]);
        check(|signs, _| signs.silent_since = None, expect![[""]]);
    }

    proptest! {
        #[test]
        fn whatever_the_signs(
            told in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), 0u64..4000, any::<bool>()), 0..60)
        ) {
            let start = crate::engine::test_clock();
            let mut recovery = Recovery::default();
            let (mut now, mut last) = (start, None::<Instant>);
            for (associated, silent, heard, pass, end) in told {
                now += Duration::from_secs(pass);
                let since = now - Duration::from_secs(pass);
                let signs = Signs {
                    associated,
                    silent_since: silent.then_some(since),
                    heard: heard.then_some(now),
                    uptime: now - start,
                    limit: settings::Recovery::Reboot,
                };
                if end {
                    recovery.end();
                }
                if let Some(stage) = recovery.review(signs, now) {
                    prop_assert!(end || last.is_none_or(|last| now >= last + FIRST_WAIT));
                    prop_assert!(stage != Stage::Reboot || (now - start >= SHORTEST_UPTIME && !heard));
                    last = Some(now);
                }
                prop_assert!(recovery.next_deadline().is_none_or(|next| next > now));
            }
        }
    }
}
