//! The network and the machine of one transfer: how fast connections are, and what becomes of them.

use super::super::event::Chunk;

/// A connection that brings nothing for so long is given up by its worker.
const STALL: f64 = 20.0;
pub const NEVER: f64 = f64::INFINITY;

/// The network and the machine of one transfer.
#[derive(Debug)]
pub struct Conditions {
    /// Of a healthy connection, of the link, of one hasher; bytes per second.
    pub rate: f64,
    pub link: f64,
    pub hash: f64,
    pub head: f64,
    pub cpu: f64,
    /// Connections that will still turn out to be bad, or become so.
    pub bad_left: u32,
    pub bad: u32,
    pub cuts: bool,
    pub restarts: bool,
    pub threads_fail: bool,
    /// Other transfers want some of the connections now and then.
    pub has_siblings: bool,
    /// Of the host.
    pub addresses: Vec<Address>,
    pub turn: usize,
}

/// Where connections lead.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// A connection to it brings this part of the usual rate.
    pub part: f64,
    /// It is not connected to before, if there is another one.
    pub avoided_until: f64,
}

/// An address is avoided so long.
const AVOIDED_FOR: f64 = 60.0;

#[derive(Clone, Debug)]
pub struct Fetching {
    pub chunk: Chunk,
    pub at: f64,
    pub end: u64,
    pub connection: Connection,
    /// Asks again then, on a new connection.
    pub retries_at: f64,
}

#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub address: usize,
    pub rate: f64,
    pub head_at: f64,
    pub turns_bad_at: f64,
    pub bad_rate: f64,
    pub breaks_at: f64,
    /// When it last brought a byte.
    pub heard: f64,
}

impl Conditions {
    /// Where a new connection leads: to the next of the addresses that are not avoided.
    fn address(&mut self, now: f64) -> usize {
        self.turn += 1;
        let in_turn = |n: usize| (self.turn + n) % self.addresses.len();
        let mut in_turn = (0..self.addresses.len()).map(in_turn);
        let is_good = |n: &usize| self.addresses[*n].avoided_until <= now;
        in_turn.clone().find(is_good).or_else(|| in_turn.next()).unwrap_or_default()
    }

    pub fn avoid(&mut self, address: usize, now: f64) {
        self.addresses[address].avoided_until = now + AVOIDED_FOR;
    }

    /// A request, on a connection that may be bad; to `address` if there is one already.
    pub fn connect(
        &mut self,
        random: &mut fastrand::Rng,
        now: f64,
        address: Option<usize>,
    ) -> Connection {
        let address = address.unwrap_or_else(|| self.address(now));
        let it = self;
        let rate = it.rate * it.addresses[address].part * (0.85 + 0.3 * random.f64());
        let mut connection = Connection {
            address,
            rate,
            head_at: now + it.head,
            turns_bad_at: NEVER,
            bad_rate: rate,
            breaks_at: NEVER,
            heard: now,
        };
        if it.bad_left > 0 && random.u8(0..4) == 0 {
            it.bad_left -= 1;
            connection.turns_bad_at = now + it.head + random.f64() * 3.0;
            // Dead, a drip, slow.
            connection.bad_rate =
                [0.0, 2_500.0, 70_000.0, rate / 20.0, rate / 6.0][random.usize(0..5)];
        } else if it.cuts && random.u8(0..20) == 0 {
            connection.breaks_at = connection.head_at + random.f64() * 2.0;
        }
        connection
    }
}

impl Fetching {
    pub fn rate(&self, now: f64) -> f64 {
        let connection = &self.connection;
        if self.retries_at < NEVER || now < connection.head_at {
            0.0
        } else if now >= connection.turns_bad_at {
            connection.bad_rate
        } else {
            connection.rate
        }
    }

    /// When something happens to it, at the latest.
    pub fn next(&self, now: f64, share: f64) -> f64 {
        if self.retries_at < NEVER {
            return self.retries_at.max(now);
        }
        let connection = &self.connection;
        let rate = self.rate(now) * share;
        let done =
            if rate > 0.0 { now + (self.end as f64 - self.at).max(0.0) / rate } else { NEVER };
        let after = |time: f64| if time > now { time } else { NEVER };
        let stall = if rate > 0.0 { NEVER } else { connection.heard + STALL };
        done.min(after(connection.head_at))
            .min(after(connection.turns_bad_at))
            .min(connection.breaks_at.max(now))
            .min(stall.max(now))
    }
}

impl Connection {
    pub fn is_broken(&self, now: f64) -> bool {
        now >= self.breaks_at || now >= self.heard + STALL
    }
}
