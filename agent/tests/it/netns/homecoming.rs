//! How soon the wired host is reached again once the uplink is back: within a second of its carrier and its address.
//!
//! Two ask: the router's network stack, which repeats an unanswered ARP question only after a second, and a machine beside it
//! that has no such patience.

use std::time::{Duration, Instant};

use super::alone_in_namespace;
use super::prober::{Asker, Echo, Prober, await_answer};
use super::rig::{PRINTER, Rig, eventually, ip};

const BACK: Duration = Duration::from_secs(1);

/// What happens to the uplink: how it is lost, what of it returns first, and what returns last, which the time counts from.
struct Interruption {
    name: &'static str,
    lose: fn(&Rig),
    prepare: fn(&Rig),
    complete: fn(&Rig),
}

fn carrier_goes(rig: &Rig) {
    rig.router.ip("link set r0 down");
}

fn carrier_comes(rig: &Rig) {
    rig.router.ip("link set r0 up");
}

fn carrier_and_address_go(rig: &Rig) {
    carrier_goes(rig);
    ip("addr del 192.168.77.2/24 dev up0");
}

fn address_comes(_rig: &Rig) {
    ip("addr add 192.168.77.2/24 dev up0");
    ip("route replace default via 192.168.77.1 dev up0");
}

fn carrier_comes_first(rig: &Rig) {
    carrier_comes(rig);
    eventually("the uplink has a carrier", || {
        ip("link show up0").contains("LOWER_UP")
    });
}

const INTERRUPTIONS: [Interruption; 3] = [
    Interruption {
        name: "carrier, the address kept",
        lose: carrier_goes,
        prepare: |_| (),
        complete: carrier_comes,
    },
    Interruption {
        name: "carrier, then the address",
        lose: carrier_and_address_go,
        prepare: carrier_comes_first,
        complete: address_comes,
    },
    Interruption {
        name: "the address, then carrier",
        lose: carrier_and_address_go,
        prepare: address_comes,
        complete: carrier_comes,
    },
];

fn is_back(rig: &Rig, interruption: &Interruption) {
    let echo = Echo::open(&rig.router, PRINTER);
    let asker = Asker::open(&rig.router, "r0", PRINTER);
    await_answer(&echo);
    await_answer(&asker);
    (interruption.lose)(rig);
    rig.await_state("waiting-for-uplink");
    (interruption.prepare)(rig);
    let begin = Instant::now();
    (interruption.complete)(rig);
    let (echo, asker) = std::thread::scope(|scope| {
        let echo = scope.spawn(move || took_since(begin, &echo));
        let asker = scope.spawn(move || took_since(begin, &asker));
        (echo.join().unwrap(), asker.join().unwrap())
    });
    eprintln!(
        "MEASURED back after {}: the router reaches the host after {} ms, ARP is answered after {} ms",
        interruption.name,
        echo.as_millis(),
        asker.as_millis()
    );
    assert!(echo < BACK && asker < BACK, "{echo:?}, {asker:?}");
}

fn took_since(begin: Instant, prober: &impl Prober) -> Duration {
    await_answer(prober);
    begin.elapsed()
}

#[test]
fn a_host_is_reached_within_a_second_of_the_uplinks_return() {
    alone_in_namespace(|rig| {
        rig.make_client_a_printer();
        let _agent = rig.start_bridging();
        for interruption in &INTERRUPTIONS {
            is_back(rig, interruption);
        }
    });
}
