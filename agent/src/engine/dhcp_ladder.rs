//! Which way a client's DHCP requests cross (D8): as a relay's first, and if nobody answers that, by broadcast.
//!
//! Each client climbs for itself: two tries of one message without an answer, and the next two go the other way, and so on.
//! Tries are what the client sends; nothing is sent of our own. An answer is remembered for the network, which is known by its
//! subnet and its gateway's hardware address, so that other clients begin with the way that works. In a network where that is
//! not the relay's, one try in an hour is: the server may have learned it, or be another one.
//!
//! ```text
//!  client's tries   1      2      3          4          5      6      7 ...
//!  unknown network  Relay  Relay  Broadcast  Broadcast  Relay  Relay  Broadcast
//!  remembered       Broadcast  Broadcast  Relay  Relay  Broadcast
//!  re-probed        Relay  Broadcast  Broadcast  Relay
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::info;

use crate::addr::MacAddr;
use crate::wire::dhcp::MessageType;

use super::DhcpMode;
use super::dhcp_crossing::Way;
use super::dhcp_transactions::Chaddr;

/// Tries on one rung.
const TRIES: u32 = 2;
/// A message that follows its like sooner is the same try, doubled on its way.
const SAME_TRY: Duration = Duration::from_millis(250);
/// After this, a client that comes back begins anew.
const FORGET: Duration = Duration::from_secs(90);
/// How long a way without giaddr is believed to be the only one.
const REPROBE: Duration = Duration::from_secs(3600);
/// Most clients that are climbing; those with the fewest tries go first.
const MOST_CLIENTS: usize = 512;
/// Most networks remembered.
const MOST_NETWORKS: usize = 16;
/// Most servers shown.
const MOST_SERVERS: usize = 8;
/// Tries without any answer after which somebody should look into it: both ways were tried twice.
const HOPELESS: u32 = 2 * TRIES;

/// A network, as it can be recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Network {
    pub(crate) subnet: (Ipv4Addr, u8),
    /// The gateway's, once it is known.
    pub(crate) gateway: Option<MacAddr>,
}

/// The ladder of the whole wire.
#[derive(Debug)]
pub(crate) struct Ladder {
    mode: DhcpMode,
    clients: BTreeMap<Chaddr, Climb>,
    networks: BTreeMap<Network, Memory>,
    answered: Option<Instant>,
}

/// A client's tries since it was last answered.
#[derive(Clone, Copy, Debug)]
struct Climb {
    kind: MessageType,
    first: Way,
    /// How many tries the first way has.
    first_tries: u32,
    tries: u32,
    since: Instant,
    last: Instant,
}

/// What is known of a network.
#[derive(Clone, Debug)]
struct Memory {
    way: Way,
    /// When the way was found.
    found: Instant,
    /// When it was last put to the test.
    tested: Instant,
    used: Instant,
    /// Whether requests with giaddr went unanswered here before the other way was found.
    ignores_giaddr: bool,
    servers: BTreeMap<Ipv4Addr, Way>,
}

impl Ladder {
    pub(crate) fn new(mode: DhcpMode) -> Ladder {
        Ladder {
            mode,
            clients: BTreeMap::new(),
            networks: BTreeMap::new(),
            answered: None,
        }
    }

    /// Returns the way for a client's request, and counts it as a try.
    pub(crate) fn choose(
        &mut self,
        network: Network,
        client: Chaddr,
        kind: MessageType,
        now: Instant,
    ) -> Way {
        let climb = self.climb(network, client, kind, now);
        self.fixed().unwrap_or(climb.way())
    }

    /// Returns the way for a message that is not answered: the one its client's others go.
    pub(crate) fn present(&self, network: Network, client: Chaddr) -> Way {
        let climb = self.clients.get(&client).map(Climb::way);
        let way = climb.or_else(|| self.remembered(network));
        self.fixed().or(way).unwrap_or(Way::Relay)
    }

    fn fixed(&self) -> Option<Way> {
        match self.mode {
            DhcpMode::Auto => None,
            DhcpMode::Relay => Some(Way::Relay),
            DhcpMode::Broadcast => Some(Way::Broadcast),
            DhcpMode::Clone => Some(Way::Clone),
        }
    }

    fn climb(
        &mut self,
        network: Network,
        client: Chaddr,
        kind: MessageType,
        now: Instant,
    ) -> Climb {
        let found = self.networks.get(&network).map(|memory| memory.found);
        let before = self.clients.get(&client).copied();
        let going = before
            .filter(|climb| climb.last + FORGET > now)
            .filter(|climb| climb.tries == 0 || climb.kind == kind)
            .filter(|climb| found.is_none_or(|found| found < climb.since));
        let mut climb = match going {
            Some(climb) => climb,
            None => self.begin(network, kind, now),
        };
        if climb.tries == 0 || climb.last + SAME_TRY <= now {
            climb.tries += 1;
            climb.last = now;
        }
        climb.kind = kind;
        if self.clients.len() >= MOST_CLIENTS && !self.clients.contains_key(&client) {
            self.make_room();
        }
        self.clients.insert(client, climb);
        climb
    }

    /// Returns the foot of the ladder, as the network's memory has it.
    fn begin(&mut self, network: Network, kind: MessageType, now: Instant) -> Climb {
        let (first, first_tries) = match self.networks.get_mut(&network) {
            Some(memory) if memory.way != Way::Relay && memory.tested + REPROBE <= now => {
                memory.tested = now;
                (Way::Relay, 1)
            }
            Some(memory) => (memory.way, TRIES),
            None => (Way::Relay, TRIES),
        };
        Climb {
            kind,
            first,
            first_tries,
            tries: 0,
            since: now,
            last: now,
        }
    }

    fn make_room(&mut self) {
        let least = self.clients.iter();
        let least = least.min_by_key(|(_, climb)| (climb.tries, climb.last));
        if let Some(client) = least.map(|(client, _)| *client) {
            self.clients.remove(&client);
        }
    }

    /// Takes note that a client was answered, by which server and which way.
    pub(crate) fn take_answer(
        &mut self,
        network: Network,
        client: Chaddr,
        way: Way,
        server: Option<Ipv4Addr>,
        now: Instant,
    ) {
        self.answered = Some(now);
        let mut after_relay = false;
        if let Some(climb) = self.clients.get_mut(&client) {
            after_relay = climb.first == Way::Relay && climb.tries > climb.first_tries;
            *climb = Climb {
                first: way,
                first_tries: TRIES,
                tries: 0,
                since: now,
                last: now,
                ..*climb
            };
        }
        let after_relay = after_relay && self.mode == DhcpMode::Auto;
        self.remember(network, way, after_relay, now);
        if let (Some(memory), Some(server)) = (self.networks.get_mut(&network), server)
            && (memory.servers.len() < MOST_SERVERS || memory.servers.contains_key(&server))
        {
            memory.servers.insert(server, way);
        }
    }

    fn remember(&mut self, network: Network, way: Way, after_relay: bool, now: Instant) {
        if let Some(memory) = self.networks.get_mut(&network) {
            memory.used = now;
            let changed = memory.way != way;
            if changed {
                memory.way = way;
                memory.found = now;
                memory.tested = now;
                memory.ignores_giaddr = after_relay;
                info!(?way, "DHCP crosses another way");
            }
            return;
        }
        if self.networks.len() >= MOST_NETWORKS {
            let oldest = self.networks.iter().min_by_key(|(_, memory)| memory.used);
            if let Some(network) = oldest.map(|(network, _)| *network) {
                self.networks.remove(&network);
            }
        }
        info!(?way, "DHCP crosses");
        let memory = Memory {
            way,
            found: now,
            tested: now,
            used: now,
            ignores_giaddr: after_relay,
            servers: BTreeMap::new(),
        };
        self.networks.insert(network, memory);
    }

    /// Returns the way that worked in a network.
    pub(crate) fn remembered(&self, network: Network) -> Option<Way> {
        self.networks.get(&network).map(|memory| memory.way)
    }

    /// Returns the servers that answered in a network, each with the way it last did.
    pub(crate) fn servers(&self, network: Network) -> Vec<(Ipv4Addr, Way)> {
        let memory = self.networks.get(&network);
        let servers = memory.into_iter().flat_map(|memory| &memory.servers);
        servers.map(|(server, way)| (*server, *way)).collect()
    }

    /// Returns whether the network's servers were found to ignore giaddr.
    pub(crate) fn giaddr_is_ignored(&self, network: Network) -> bool {
        let memory = self.networks.get(&network);
        memory.is_some_and(|memory| memory.ignores_giaddr && memory.way == Way::Broadcast)
    }

    /// Returns how many clients ask in vain while nobody is answered.
    pub(crate) fn hopeless(&self, now: Instant) -> usize {
        if self.answered.is_some_and(|at| at + FORGET > now) {
            return 0;
        }
        let hopeless = |climb: &&Climb| climb.tries >= HOPELESS && climb.last + FORGET > now;
        self.clients.values().filter(hopeless).count()
    }

    /// Forgets all climbs, because the address they began under is gone. What is known of networks stays.
    pub(crate) fn clear(&mut self) {
        self.clients.clear();
        self.answered = None;
    }

    /// Forgets clients that gave up.
    pub(crate) fn handle_tick(&mut self, now: Instant) {
        self.clients.retain(|_, climb| climb.last + FORGET > now);
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_bounded(&self) -> bool {
        self.clients.len() <= MOST_CLIENTS && self.networks.len() <= MOST_NETWORKS
    }
}

impl Climb {
    fn way(&self) -> Way {
        let beyond = self.tries.saturating_sub(1).checked_sub(self.first_tries);
        match beyond {
            Some(beyond) if (beyond / TRIES).is_multiple_of(2) => self.first.other(),
            Some(_) | None => self.first,
        }
    }
}

impl Way {
    /// Returns the other rung.
    fn other(self) -> Way {
        match self {
            Way::Relay => Way::Broadcast,
            Way::Broadcast | Way::Clone => Way::Relay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISCOVER: MessageType = MessageType::Discover;
    const HOME: Network = Network {
        subnet: (Ipv4Addr::new(10, 0, 0, 0), 24),
        gateway: Some(MacAddr(2, 0, 0, 0, 0, 1)),
    };
    const ELSEWHERE: Network = Network {
        gateway: Some(MacAddr(2, 0, 0, 0, 0, 9)),
        ..HOME
    };

    struct Story {
        ladder: Ladder,
        now: Instant,
    }

    impl Story {
        fn new(mode: DhcpMode) -> Story {
            let now = crate::engine::test_clock();
            Story {
                ladder: Ladder::new(mode),
                now,
            }
        }

        /// Has a client try some times, three seconds apart, and returns the ways as letters.
        fn tries(&mut self, network: Network, client: u8, kind: MessageType, tries: u32) -> String {
            let letter = |way| match way {
                Way::Relay => 'R',
                Way::Broadcast => 'B',
                Way::Clone => 'C',
            };
            let ways = (0..tries).map(|_| {
                self.now += Duration::from_secs(3);
                letter(self.ladder.choose(network, [client; 16], kind, self.now))
            });
            ways.collect()
        }

        fn answer(&mut self, network: Network, client: u8, way: Way) {
            self.ladder
                .take_answer(network, [client; 16], way, None, self.now);
        }
    }

    #[test]
    fn d8_an_unanswered_client_climbs_and_an_answer_is_remembered() {
        let mut story = Story::new(DhcpMode::Auto);
        assert_eq!(story.tries(HOME, 1, DISCOVER, 7), "RRBBRRB");
        story.answer(HOME, 1, Way::Broadcast);
        assert_eq!(story.tries(HOME, 1, MessageType::Request, 1), "B");
        // Another client begins where the first arrived; in another network everything is open.
        assert_eq!(story.tries(HOME, 2, DISCOVER, 5), "BBRRB");
        assert_eq!(story.tries(ELSEWHERE, 3, DISCOVER, 3), "RRB");
        assert!(story.ladder.giaddr_is_ignored(HOME));
        story.answer(HOME, 2, Way::Relay);
        assert_eq!(story.tries(HOME, 4, DISCOVER, 3), "RRB");
        assert!(!story.ladder.giaddr_is_ignored(HOME));
    }

    #[test]
    fn d8_a_client_that_is_climbing_profits_from_anothers_answer() {
        let mut story = Story::new(DhcpMode::Auto);
        assert_eq!(story.tries(HOME, 1, DISCOVER, 3), "RRB");
        assert_eq!(story.tries(HOME, 2, DISCOVER, 1), "R");
        story.answer(HOME, 1, Way::Broadcast);
        assert_eq!(story.tries(HOME, 2, DISCOVER, 2), "BB");
    }

    #[test]
    fn d8_silence_on_one_kind_of_message_says_nothing_of_another() {
        let mut story = Story::new(DhcpMode::Auto);
        // A server may well be silent about a lease it does not know.
        assert_eq!(story.tries(HOME, 1, MessageType::Request, 2), "RR");
        assert_eq!(story.tries(HOME, 1, DISCOVER, 2), "RR");
    }

    #[test]
    fn d8_giaddr_is_tried_again_once_an_hour() {
        let mut story = Story::new(DhcpMode::Auto);
        assert_eq!(story.tries(HOME, 1, DISCOVER, 3), "RRB");
        story.answer(HOME, 1, Way::Broadcast);
        story.now += REPROBE;
        assert_eq!(story.tries(HOME, 2, DISCOVER, 2), "RB");
        story.answer(HOME, 2, Way::Broadcast);
        assert_eq!(story.tries(HOME, 3, DISCOVER, 1), "B");
    }

    #[test]
    fn d8_a_configured_way_is_the_only_one() {
        for (mode, ways) in [
            (DhcpMode::Relay, "RRRRRR"),
            (DhcpMode::Broadcast, "BBBBBB"),
            (DhcpMode::Clone, "CCCCCC"),
        ] {
            let mut story = Story::new(mode);
            assert_eq!(story.tries(HOME, 1, DISCOVER, 6), ways);
            assert_eq!(story.ladder.hopeless(story.now), 1);
            story.now += FORGET;
            assert_eq!(story.ladder.hopeless(story.now), 0);
        }
    }

    #[test]
    fn a_doubled_frame_is_one_try() {
        let mut story = Story::new(DhcpMode::Auto);
        assert_eq!(story.tries(HOME, 1, DISCOVER, 2), "RR");
        let ways = [1, 2, 3].map(|_| story.ladder.choose(HOME, [1; 16], DISCOVER, story.now));
        assert_eq!(ways, [Way::Relay; 3]);
    }

    #[test]
    fn a_flood_fills_no_table_and_keeps_who_tried_most() {
        let mut story = Story::new(DhcpMode::Auto);
        assert_eq!(story.tries(HOME, 1, DISCOVER, 2), "RR");
        for number in 0..1000u16 {
            let mut client = [9; 16];
            client[..2].copy_from_slice(&number.to_be_bytes());
            story.ladder.choose(HOME, client, DISCOVER, story.now);
            let network = Network {
                subnet: (Ipv4Addr::from(u32::from(number) << 8), 24),
                ..HOME
            };
            story
                .ladder
                .take_answer(network, client, Way::Relay, None, story.now);
        }
        assert!(story.ladder.is_bounded());
        assert_eq!(story.tries(HOME, 1, DISCOVER, 1), "B");
    }
}
