//! What machines have to give, what is reserved of it, and how much of a machine that is.
//!
//! Owns the amounts and their arithmetic. Whoever has an entry on a machine holds what its unit reserves
//! there, moving and departing entries too: what still runs still uses it.

use std::fmt;

use flotilla_registry::records::Capacity;
use flotilla_units::Reservation;
use rustc_hash::FxHashMap;

/// The whole of a resource, as a share: two to the power of twenty, so that the share of up to 8 TiB is
/// one division of 64-bit numbers. Integers, because equal facts have to give equal decisions everywhere.
pub(super) const WHOLE: u32 = 1 << 20;

/// A resource that can be reserved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Processors, in thousandths.
    Cpu,
    /// Memory, in bytes.
    Memory,
    /// One that machines publish under this name.
    Named(String),
}

/// What a class of units reserves; names are numbers of [`Names`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) cpu: u64,
    pub(super) memory: u64,
    pub(super) named: Vec<(usize, u64)>,
    pub(super) ports: Vec<u16>,
}

/// Names of counted resources, numbered in the order in which they were met. They are never forgotten: there
/// are as many as operators and unit files name.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    names: Vec<String>,
    numbers: FxHashMap<String, usize>,
}

/// What is reserved on a machine, beside what it has.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    cpu: (u64, u64),
    memory: (u64, u64),
    named: Vec<(u64, u64)>,
    ports: FxHashMap<u16, u32>,
}

/// The most that one unit counts for of anything. 2^48, 256 TiB of memory: more than any machine has, and so little
/// that the sum of all units of a machine fits into 64 bits.
const AMOUNT_MAX: u64 = 1 << 48;

impl Names {
    pub(super) fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), self.names.len() - 1);
        self.names.len() - 1
    }

    pub(super) fn amount(&mut self, reserve: &Reservation) -> Amount {
        Amount {
            cpu: reserve.cpu_milli.min(AMOUNT_MAX),
            memory: reserve.memory_bytes.min(AMOUNT_MAX),
            named: (reserve.named.iter())
                .map(|(name, count)| (self.number(name), (*count).min(AMOUNT_MAX)))
                .collect(),
            ports: reserve.ports.iter().copied().collect(),
        }
    }
}

impl Amount {
    pub(super) fn is_empty(&self) -> bool {
        self.cpu == 0 && self.memory == 0 && self.named.is_empty() && self.ports.is_empty()
    }

    /// Adds another's; ports that both have stand twice, so that they never fit.
    pub(super) fn add(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory = self.memory.saturating_add(other.memory);
        for (name, count) in &other.named {
            match self.named.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum = sum.saturating_add(*count),
                None => self.named.push((*name, *count)),
            }
        }
        self.ports.extend(&other.ports);
        self.ports.sort_unstable();
    }
}

/// Part of a whole in parts of [`WHOLE`]; more than all when there is nothing to have.
fn share(part: u64, whole: u64) -> u32 {
    if part == 0 {
        return 0;
    }
    let (part, whole) = if part >> 43 == 0 { (part, whole) } else { (part >> 20, whole >> 20) };
    (part << 20).checked_div(whole).map_or(u32::MAX, |share| u32::try_from(share).unwrap_or(u32::MAX))
}

impl Usage {
    /// Takes in what the machine has to give; nothing of one that is dead.
    pub(super) fn set_capacity(&mut self, room: &Capacity, names: &mut Names) {
        (self.cpu.1, self.memory.1) = (room.cpu_milli, room.memory_bytes);
        self.named.iter_mut().for_each(|(_, all)| *all = 0);
        for (name, count) in &room.named {
            let number = names.number(name);
            self.named_mut(number).1 = *count;
        }
    }

    fn named_mut(&mut self, number: usize) -> &mut (u64, u64) {
        if number >= self.named.len() {
            self.named.resize(number + 1, (0, 0));
        }
        &mut self.named[number]
    }

    pub(super) fn add(&mut self, amount: &Amount) {
        self.cpu.0 += amount.cpu;
        self.memory.0 += amount.memory;
        for (number, count) in &amount.named {
            self.named_mut(*number).0 += count;
        }
        for port in &amount.ports {
            *self.ports.entry(*port).or_default() += 1;
        }
    }

    pub(super) fn sub(&mut self, amount: &Amount) {
        self.cpu.0 -= amount.cpu;
        self.memory.0 -= amount.memory;
        for (number, count) in &amount.named {
            self.named_mut(*number).0 -= count;
        }
        for port in &amount.ports {
            if let Some(holders) = self.ports.get_mut(port) {
                *holders -= 1;
                if *holders == 0 {
                    self.ports.remove(port);
                }
            }
        }
    }

    /// Tells whether so much more can be reserved. Only what is asked for counts: a machine that has too
    /// much of one thing reserved still gives another.
    pub(super) fn fits(&self, amount: &Amount) -> bool {
        let has = |(used, all): (u64, u64), asked: u64| asked == 0 || used.saturating_add(asked) <= all;
        has(self.cpu, amount.cpu)
            && has(self.memory, amount.memory)
            && amount
                .named
                .iter()
                .all(|(number, count)| has(self.named.get(*number).copied().unwrap_or_default(), *count))
            && amount.ports.iter().all(|port| !self.ports.contains_key(port))
            && amount.ports.windows(2).all(|two| two[0] != two[1])
    }

    /// Returns how often so much more can be reserved, `most` at most.
    pub(super) fn times(&self, amount: &Amount, most: u64) -> u64 {
        if amount.is_empty() || !self.fits(amount) {
            return if amount.is_empty() { most } else { 0 };
        }
        let times =
            |(used, all): (u64, u64), asked: u64| all.saturating_sub(used).checked_div(asked).unwrap_or(most);
        let named = amount
            .named
            .iter()
            .map(|(number, count)| times(self.named.get(*number).copied().unwrap_or_default(), *count));
        let ports = if amount.ports.is_empty() { most } else { 1 };
        let least = named.fold(most.min(ports), u64::min);
        least.min(times(self.cpu, amount.cpu)).min(times(self.memory, amount.memory))
    }

    /// Returns how much of what is missing one gives who leaves, in parts of [`WHOLE`]; of a port all.
    pub(super) fn helped_by(&self, gives: &Amount, ask: &Amount) -> u32 {
        let of = |(used, all): (u64, u64), asked: u64, given: u64| {
            let missing = used.saturating_add(asked).saturating_sub(all);
            if asked == 0 || missing == 0 { 0 } else { share(given.min(missing), missing) }
        };
        let given = |number: &usize| {
            gives.named.iter().find(|(name, _)| name == number).map_or(0, |(_, count)| *count)
        };
        let named = ask.named.iter().map(|(number, asked)| {
            of(self.named.get(*number).copied().unwrap_or_default(), *asked, given(number))
        });
        let port = ask.ports.iter().any(|port| gives.ports.contains(port) && self.ports.contains_key(port));
        let cpu = of(self.cpu, ask.cpu, gives.cpu);
        let memory = of(self.memory, ask.memory, gives.memory);
        named.chain([cpu, memory, if port { WHOLE } else { 0 }]).fold(0, u32::max)
    }

    /// Returns the share of that resource of which most is reserved, once so much more is.
    pub(super) fn share_with(&self, amount: &Amount) -> u32 {
        let plain = share(self.cpu.0.saturating_add(amount.cpu), self.cpu.1)
            .max(share(self.memory.0.saturating_add(amount.memory), self.memory.1));
        let more = |number: usize| {
            amount.named.iter().find(|(asked, _)| *asked == number).map_or(0, |(_, count)| *count)
        };
        let named = self.named.iter().enumerate();
        named.fold(plain, |most, (number, (used, all))| {
            most.max(share(used.saturating_add(more(number)), *all))
        })
    }

    /// Returns the share that an amount alone would be, of that resource of which it would be most.
    pub(super) fn share_of(&self, amount: &Amount) -> u32 {
        let alone = Self {
            cpu: (0, self.cpu.1),
            memory: (0, self.memory.1),
            named: self.named.iter().map(|(_, all)| (0, *all)).collect(),
            ports: FxHashMap::default(),
        };
        alone.share_with(amount)
    }

    /// Returns the share of that resource of which most is reserved.
    pub(super) fn share(&self) -> u32 {
        self.share_with(&Amount::default())
    }

    /// Returns of which resources there is less than asked for: asked, free, all.
    pub(super) fn lacks(&self, amount: &Amount, names: &Names) -> Vec<(Resource, u64, u64, u64)> {
        let mut lacks = Vec::new();
        let mut look = |resource: Resource, (used, all): (u64, u64), asked: u64| {
            if asked > 0 && used.saturating_add(asked) > all {
                lacks.push((resource, asked, all.saturating_sub(used), all));
            }
        };
        look(Resource::Cpu, self.cpu, amount.cpu);
        look(Resource::Memory, self.memory, amount.memory);
        for (number, count) in &amount.named {
            let has = self.named.get(*number).copied().unwrap_or_default();
            look(Resource::Named(names.names[*number].clone()), has, *count);
        }
        lacks.sort();
        lacks
    }

    /// Returns the ports of these that are held.
    pub(super) fn held<'a>(&'a self, amount: &'a Amount) -> impl Iterator<Item = u16> + 'a {
        amount.ports.iter().copied().filter(|port| self.ports.contains_key(port))
    }
}

impl Resource {
    /// Writes an amount of it as people do.
    fn in_words(&self, amount: u64) -> String {
        match self {
            Self::Cpu if amount.is_multiple_of(1_000) => (amount / 1_000).to_string(),
            Self::Cpu => {
                let text = format!("{}.{:03}", amount / 1_000, amount % 1_000);
                text.trim_end_matches('0').to_owned()
            }
            Self::Memory => bytes(amount),
            Self::Named(_) => amount.to_string(),
        }
    }

    /// Says how much is asked for and how much is there.
    pub(super) fn asked_and_free(&self, asked: u64, free: u64, all: u64) -> (String, String) {
        let free = format!("{} of {} free", self.in_words(free), self.in_words(all));
        (format!("{self}: {} asked", self.in_words(asked)), free)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Memory => f.write_str("memory"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// Bytes as systemd writes sizes, to one decimal.
fn bytes(amount: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    let Some((unit, shift)) = units.into_iter().find(|(_, shift)| amount >> shift > 0) else {
        return format!("{amount}B");
    };
    let tenths = (u128::from(amount) * 10) >> shift;
    if tenths % 10 == 0 {
        format!("{}{unit}", tenths / 10)
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}
