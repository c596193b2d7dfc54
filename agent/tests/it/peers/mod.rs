//! Other people's DHCP servers on the router and other people's clients on the wire, each with each, the agent between.
//!
//! Each pair has namespaces of its own, and several pairs run at a time. A client has to get a lease, reach the router, renew
//! the lease by unicast, so that the agent only sees it pass (D7), and give it up, so that the agent forgets the host (D6).
//! Servers tell their clients to renew after three seconds, and by broadcast after six more if that is not answered. How long
//! the lease took is reported, not judged.

mod clients;
mod deaf_server;
mod servers;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use clients::{CLIENTS, Client};
use servers::{SERVERS, Server};

use crate::netns::rig::{ROUTER, Rig, comes_within};
use crate::netns::{Company, obstacle, run_inside};
use crate::skip::skip;

/// Names the pair inside the namespaces.
const PAIR: &str = "FOOTBRIDGE_TEST_PAIR";
/// How many pairs run at a time: they mostly wait.
const AT_A_TIME: usize = 10;
/// The slowest clients wait half a minute for their third try, which is the first by broadcast.
const LEASE_PATIENCE: Duration = Duration::from_secs(45);
const PATIENCE: Duration = Duration::from_secs(15);

/// What a pair does if nothing is said of it below.
const EVERYTHING: &str = "leases pings renews releases";

/// Pairs that do less, and why. `*` is every server or every client.
const EXCEPTIONS: [(&str, &str, &str, &str); 3] = [
    (
        "udhcpd",
        "networkd",
        "leases pings rebinds keeps",
        "both of the reasons below",
    ),
    (
        "udhcpd",
        "*",
        "leases pings rebinds releases",
        "it sends what renews to the client's hardware address, which the uplink does not have: the client asks everybody",
    ),
    (
        "*",
        "networkd",
        "leases pings renews keeps",
        "it gives a lease up only when told to over D-Bus, which is not there",
    ),
];

#[test]
fn d5_d6_d7_d8_every_client_gets_a_lease_from_every_server() {
    if let Ok(pair) = std::env::var(PAIR) {
        let (server, client) = pair.split_once(' ').unwrap();
        eprintln!("OUTCOME {}", try_pair(server, client));
        return;
    }
    let test = "peers::d5_d6_d7_d8_every_client_gets_a_lease_from_every_server";
    if let Some(reason) = obstacle() {
        return skip(test, &reason);
    }
    let pairs = SERVERS
        .iter()
        .flat_map(|server| CLIENTS.iter().map(move |client| (server, client)));
    let waiting = Mutex::new(pairs);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                // The lock is not held while a pair runs.
                let next = || waiting.lock().unwrap().next();
                while let Some((server, client)) = next() {
                    if let Some(outcome) = outcome(test, server, client) {
                        outcomes.lock().unwrap().push(outcome);
                    }
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    for line in table(&outcomes) {
        eprintln!("MEASURED {line}");
    }
    let mut unexpected = Vec::new();
    for outcome in &outcomes {
        let Outcome { server, client, .. } = outcome;
        let (expected, why) = expectation(server, client);
        if outcome.did != expected {
            unexpected.push(format!(
                "{client} and {server}: {}, but expected: {expected} ({why})",
                outcome.did
            ));
        }
    }
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

/// How far a client came with a server.
struct Outcome {
    server: &'static str,
    client: &'static str,
    did: String,
    /// The time to the lease.
    took: String,
}

/// Returns the lines of a table of servers and clients: the time to the lease, and what else was not as with most.
fn table(outcomes: &[Outcome]) -> Vec<String> {
    let row = |first: &str, cells: Vec<String>| format!("| {first} | {} |", cells.join(" | "));
    let clients = CLIENTS.iter().map(|client| client.name.to_owned());
    let mut lines = vec![
        row("lease from", clients.collect()),
        row("---", vec!["---".to_owned(); CLIENTS.len()]),
    ];
    for server in &SERVERS {
        let cell = |client: &Client| {
            let of_pair =
                |outcome: &&Outcome| (outcome.server, outcome.client) == (server.name, client.name);
            outcomes
                .iter()
                .find(of_pair)
                .map_or_else(|| "not there".to_owned(), Outcome::in_short)
        };
        lines.push(row(server.name, CLIENTS.iter().map(cell).collect()));
    }
    lines
}

impl Outcome {
    fn in_short(&self) -> String {
        let usual: Vec<&str> = EVERYTHING.split(' ').collect();
        let others = self.did.split(' ').filter(|word| !usual.contains(word));
        let words = [self.took.as_str()].into_iter().chain(others);
        words.collect::<Vec<_>>().join(", ")
    }
}

fn expectation(server: &str, client: &str) -> (&'static str, &'static str) {
    let fits = |pattern: &str, name: &str| pattern == "*" || pattern == name;
    let exception = EXCEPTIONS
        .iter()
        .find(|(s, c, _, _)| fits(s, server) && fits(c, client));
    exception.map_or((EVERYTHING, "no reason not to"), |(_, _, did, why)| {
        (did, why)
    })
}

/// Runs a pair in namespaces of its own, if its programs are there.
fn outcome(test: &str, server: &Server, client: &Client) -> Option<Outcome> {
    let missing = server.missing().or_else(|| client.missing());
    if let Some(program) = missing {
        skip(
            &format!("{test} ({} and {})", server.name, client.name),
            &format!("no {program}"),
        );
        return None;
    }
    let pair = format!("{} {}", server.name, client.name);
    let said = run_inside(test, &[(PAIR, &pair)], Company::Welcome);
    let found = said.lines().find_map(|line| line.strip_prefix("OUTCOME "));
    let found = found.unwrap();
    let (did, took) = found.split_once(" after ").unwrap_or((found, "never"));
    Some(Outcome {
        server: server.name,
        client: client.name,
        did: did.to_owned(),
        took: took.to_owned(),
    })
}

/// Inside: has a client live through a lease, and says how far it came.
fn try_pair(server: &str, client: &str) -> String {
    let server = SERVERS.iter().find(|known| known.name == server).unwrap();
    let client = CLIENTS.iter().find(|known| known.name == client).unwrap();
    let mut rig = Rig::build();
    server.start(&mut rig);
    let _agent = rig.start_bridging();
    let start = Instant::now();
    let client = client.start(&mut rig);
    let mut address = None;
    let leased = comes_within(LEASE_PATIENCE, || {
        address = rig.client_address();
        address.is_some()
    });
    let took = start.elapsed().as_millis();
    let (true, Some(address)) = (leased, address) else {
        eprintln!("{}", client.log());
        return "nothing".to_owned();
    };
    let pings = comes_within(PATIENCE, || rig.client.pings(ROUTER));
    let delivered = rig.counter("dhcp-reply-delivered");
    client.renew(&rig);
    let renews = comes_within(PATIENCE, || rig.counter("dhcp-renewal-seen") > 0);
    let rebinds = || comes_within(PATIENCE, || rig.counter("dhcp-reply-delivered") > delivered);
    let renewal = match renews {
        true => "renews",
        false if rebinds() => "rebinds",
        false => "forgets",
    };
    client.release(&rig);
    let releases = client.can_release() && comes_within(PATIENCE, || !is_known(&rig, &address));
    let word = |did, yes: &'static str, no: &'static str| if did { yes } else { no };
    format!(
        "leases {} {renewal} {} after {took} ms",
        word(pings, "pings", "reaches-nobody"),
        word(releases, "releases", "keeps"),
    )
}

fn is_known(rig: &Rig, address: &str) -> bool {
    let status = rig.status().unwrap();
    let hosts = status["hosts"].as_array().unwrap();
    hosts.iter().any(|host| host["ip"] == address)
}
