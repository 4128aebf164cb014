//! Machines in the order in which units that reserve, wish or spread want them.
//!
//! Owned by one run of a group: it is made from the model, or kept from an earlier run (`rankings`), when the run
//! begins, and told of each unit that the run places. Machines with equal values of the keys that are spread over are a
//! cell; each cell is a tournament over its machines, and the best of each cell play another. Making it costs a look
//! at every machine of the set, each unit then the logarithm of it.
//!
//! ```text
//! fewest instances in the value ─► most wishes met ─► least dominant share ─► fewest units ─► lowest id
//! ```

use rustc_hash::FxHashMap;

use super::{
    Placement,
    bits::{Bits, Slot},
    keys::KeyIx,
    model::UnitIx,
    patterns::PatternIx,
    room::Amount,
};

/// What decides between the machines of a cell, the lesser the better: wishes met below zero, dominant share
/// after placing, units. Equal ones go by machine id.
type Worth = (i32, u32, u32);

/// What decides between cells: instances per value, the earlier key the more, then the best machine's worth
/// with what the cell itself is worth.
type CellWorth = (u128, i32, u32, u32, u32);

const FULL: Worth = (i32::MAX, u32::MAX, u32::MAX);
const EMPTY: CellWorth = (u128::MAX, i32::MAX, u32::MAX, u32::MAX, u32::MAX);

/// A tournament: the root is the least of the leaves, the leftmost of equals.
#[derive(Debug)]
struct Tree<W> {
    size: usize,
    nodes: Vec<(W, u32)>,
}

impl<W: Ord + Copy> Tree<W> {
    fn new(leaves: &[W], none: W) -> Self {
        let size = leaves.len().next_power_of_two();
        let mut nodes = vec![(none, u32::MAX); 2 * size];
        for (at, leaf) in (0..).zip(leaves) {
            nodes[size + at as usize] = (*leaf, at);
        }
        for at in (1..size).rev() {
            nodes[at] = nodes[2 * at].min(nodes[2 * at + 1]);
        }
        Self { size, nodes }
    }

    fn set(&mut self, leaf: u32, worth: W) {
        let mut at = self.size + leaf as usize;
        self.nodes[at] = (worth, leaf);
        while at > 1 {
            at /= 2;
            self.nodes[at] = self.nodes[2 * at].min(self.nodes[2 * at + 1]);
        }
    }

    fn best(&self) -> (W, u32) {
        self.nodes[1]
    }
}

/// How many instances there are for each value of a key.
#[derive(Debug)]
struct Values {
    key: KeyIx,
    /// What a value with the fewest is worth; 0 for a key that has to be spread over.
    weight: i32,
    counts: Vec<u32>,
    /// How many cells of each value still have a machine.
    open: Vec<u32>,
    /// The least count of a value that has.
    least: u32,
    /// How many values have that.
    at_least: u32,
}

impl Values {
    const fn new(key: KeyIx, weight: i32) -> Self {
        Self { key, weight, counts: Vec::new(), open: Vec::new(), least: 0, at_least: 0 }
    }

    /// Finds the fewest again; tells whether that changed.
    fn settle(&mut self) -> bool {
        let open = self.counts.iter().zip(&self.open).filter(|(_, open)| **open > 0);
        let least = open.clone().map(|(count, _)| *count).min().unwrap_or(0);
        self.at_least = u32::try_from(open.filter(|(count, _)| **count == least).count()).unwrap_or(u32::MAX);
        std::mem::replace(&mut self.least, least) != least
    }
}

/// A cell's number and a machine's place in it.
type Place = (u32, u32);

/// The place of a machine that has none.
const NOWHERE: Place = (u32::MAX, u32::MAX);

#[derive(Debug)]
struct Cell {
    /// Its value of each key.
    values: Box<[u32]>,
    /// With their place in the order of ids.
    machines: Vec<(Slot, u32)>,
    tree: Tree<Worth>,
}

impl Cell {
    fn is_full(&self) -> bool {
        self.tree.best().0 == FULL
    }
}

/// The order of a set of machines for some units that go together; the first of them is who is spread.
#[derive(Debug)]
pub(super) struct Ranking {
    units: Vec<UnitIx>,
    ask: Amount,
    /// Those that are placed count as instances of one template.
    counts: bool,
    /// How many of the keys have to be spread over; the others are wishes.
    hard: usize,
    keys: Vec<Values>,
    cells: Vec<Cell>,
    /// By slot.
    place: Vec<Place>,
    top: Tree<CellWorth>,
}

impl Ranking {
    pub(super) fn new(core: &Placement, units: &[UnitIx], set: &Bits) -> Self {
        let spread = spread_of(core, units);
        let keys = spread.map(|unit| &*core.classes.get(core.unit(unit).class).keys).unwrap_or_default();
        let hard = keys.iter().filter(|(_, weight)| *weight == 0).count();
        let mut it = Self {
            units: units.to_vec(),
            ask: core.ask_of(units),
            counts: spread.is_some_and(|unit| core.unit(unit).siblings.is_some()),
            hard,
            keys: keys.iter().map(|(key, weight)| Values::new(*key, *weight)).collect(),
            cells: Vec::new(),
            place: Vec::new(),
            top: Tree::new(&[], EMPTY),
        };
        it.divide(core, set);
        for at in 0..it.cells.len() {
            let machines = it.cells[at].machines.iter();
            let worths: Vec<Worth> = machines.map(|(slot, _)| core.worth(units, &it.ask, *slot)).collect();
            it.cells[at].tree = Tree::new(&worths, FULL);
        }
        it.begin(core);
        it
    }

    /// Divides a set of machines into cells.
    fn divide(&mut self, core: &Placement, set: &Bits) {
        let mut cell_of: FxHashMap<Box<[u32]>, u32> = FxHashMap::default();
        let mut slots: Vec<Slot> = set.iter().collect();
        if core.disordered {
            slots.sort_by_key(|slot| core.machine(*slot).id);
        }
        let mut values = Vec::with_capacity(self.keys.len());
        for (order, slot) in (0..).zip(slots) {
            values.clear();
            values.extend(self.keys.iter().map(|of| core.keys.value(of.key, slot)));
            let cell = cell_of.get(values.as_slice()).copied().unwrap_or_else(|| {
                let cell = self.cells.len() as u32;
                let values: Box<[u32]> = values.as_slice().into();
                self.cells.push(Cell {
                    values: values.clone(),
                    machines: Vec::new(),
                    tree: Tree::new(&[], FULL),
                });
                cell_of.insert(values, cell);
                cell
            });
            let machines = &mut self.cells[cell as usize].machines;
            if self.place.len() <= slot as usize {
                self.place.resize(slot as usize + 1, NOWHERE);
            }
            self.place[slot as usize] = (cell, machines.len() as u32);
            machines.push((slot, order));
        }
    }

    /// Takes in for which unit it is asked next, one of the same class.
    pub(super) fn ask_for(&mut self, unit: UnitIx) {
        self.units.clear();
        self.units.push(unit);
    }

    /// Takes in how many instances there are for each value, and compares the cells.
    pub(super) fn begin(&mut self, core: &Placement) {
        let spread = spread_of(core, &self.units);
        for of in &mut self.keys {
            of.counts.clear();
            of.counts.resize(core.keys.values(of.key), 0);
            of.open.clear();
            of.open.resize(of.counts.len(), 0);
            let Some(unit) = spread else { continue };
            core.instances(unit, of.key).zip(&mut of.counts).for_each(|(there, count)| *count = there);
            // It is none of the others.
            if core.unit(unit).siblings.is_some() {
                let own = core.unit(unit).placed.iter().filter(|slot| core.lives(*slot));
                own.for_each(|slot| of.counts[core.keys.value(of.key, slot) as usize] -= 1);
            }
        }
        for cell in self.cells.iter().filter(|cell| !cell.is_full()) {
            cell.values.iter().zip(&mut self.keys).for_each(|(value, of)| of.open[*value as usize] += 1);
        }
        for of in &mut self.keys {
            of.settle();
        }
        let worths: Vec<CellWorth> = (0..self.cells.len()).map(|cell| self.cell_worth(cell)).collect();
        self.top = Tree::new(&worths, EMPTY);
    }

    /// Tells whether a machine has room for what they reserve.
    pub(super) fn fits(&self, core: &Placement, slot: Slot) -> bool {
        core.machine(slot).used.fits(&self.ask)
    }

    /// Takes in what a machine is worth now, if it may be taken; cells are compared by [`Ranking::begin`].
    pub(super) fn set(&mut self, core: &Placement, slot: Slot, may: bool) {
        let (cell, at) = self.place.get(slot as usize).copied().unwrap_or(NOWHERE);
        let worth = if may { core.worth(&self.units, &self.ask, slot) } else { FULL };
        if let Some(cell) = self.cells.get_mut(cell as usize) {
            cell.tree.set(at, worth);
        }
    }

    /// Returns the best machine.
    pub(super) fn best(&self) -> Option<Slot> {
        let (worth, cell) = self.top.best();
        let cell = self.cells.get(cell as usize).filter(|_| worth != EMPTY)?;
        let (_, at) = cell.tree.best();
        cell.machines.get(at as usize).map(|(slot, _)| *slot)
    }

    /// Notes that a machine got such a unit; `closed` when it takes no more of them.
    pub(super) fn placed(&mut self, core: &Placement, slot: Slot, closed: bool) {
        let (cell, _) = self.place.get(slot as usize).copied().unwrap_or(NOWHERE);
        let cell = cell as usize;
        if cell >= self.cells.len() {
            return;
        }
        self.set(core, slot, !closed && self.fits(core, slot));
        let is_full = self.cells[cell].is_full();
        let mut all = false;
        for (key, value) in self.keys.iter_mut().zip(&self.cells[cell].values) {
            let value = *value as usize;
            let was_least = key.counts[value] == key.least;
            key.counts[value] += u32::from(self.counts);
            key.open[value] -= u32::from(is_full);
            let closed = is_full && key.open[value] == 0;
            if key.weight != 0 && was_least && (self.counts || closed) {
                key.at_least -= 1;
                all |= key.at_least == 0 && key.settle();
            }
        }
        // With one key a cell has its value for itself, as long as the fewest are as many as before.
        if all || self.keys.len() > 1 {
            let values = &self.cells[cell].values;
            let shares = |other: &Cell| other.values.iter().zip(values).any(|(a, b)| a == b);
            let touched = (0..self.cells.len()).filter(|at| all || shares(&self.cells[*at]));
            for other in touched.collect::<Vec<_>>() {
                let worth = self.cell_worth(other);
                self.top.set(other as u32, worth);
            }
        }
        let worth = self.cell_worth(cell);
        self.top.set(cell as u32, worth);
    }

    fn cell_worth(&self, cell: usize) -> CellWorth {
        let it = &self.cells[cell];
        let ((wishes, share, units), at) = it.tree.best();
        if (wishes, share, units) == FULL {
            return EMPTY;
        }
        let counts = self.keys.iter().zip(&it.values).map(|(key, value)| (key, key.counts[*value as usize]));
        let mut hard: u128 = 0;
        // 128 bits are shared by the keys: four of them can count to four thousand million each.
        let bits = 128 / u32::try_from(self.hard.max(1)).unwrap_or(128).min(128);
        let most = if bits >= 32 { u128::from(u32::MAX) } else { (1 << bits) - 1 };
        for (_, count) in counts.clone().take(self.hard) {
            hard = hard.checked_shl(bits).unwrap_or(0) | u128::from(count).min(most);
        }
        let met =
            counts.skip(self.hard).filter(|(key, count)| *count == key.least).map(|(key, _)| key.weight);
        let wishes = wishes.saturating_sub(met.sum::<i32>());
        let first = it.machines.get(at as usize).map_or(u32::MAX, |(_, order)| *order);
        (hard, wishes, share, units, first)
    }
}

/// Returns who of units that go together is spread.
fn spread_of(core: &Placement, units: &[UnitIx]) -> Option<UnitIx> {
    let spreads = |unit: &&UnitIx| !core.classes.get(core.unit(**unit).class).keys.is_empty();
    units.iter().find(spreads).copied()
}

impl Placement {
    /// Returns how many instances of a unit's template there are for each value of a key, it too, by the numbers of
    /// the values.
    fn instances(&self, unit: UnitIx, key: KeyIx) -> impl Iterator<Item = u32> {
        let siblings = self.unit(unit).siblings.map(|siblings| self.patterns.get(siblings));
        siblings.and_then(|siblings| siblings.values.get(key)).into_iter().flatten().copied()
    }

    /// Returns the best of a set of machines for units that go there together.
    pub(super) fn best(&self, units: &[UnitIx], set: &Bits) -> Option<Slot> {
        if units.iter().any(|unit| self.is_ranked(*unit)) {
            return Ranking::new(self, units, set).best();
        }
        let lightest = self.levels.lightest(set);
        lightest.iter().min_by_key(|slot| self.machine(*slot).id)
    }

    /// Tells whether more than the number of units decides where a unit goes.
    pub(super) fn is_ranked(&self, unit: UnitIx) -> bool {
        self.classes.get(self.unit(unit).class).ranked
    }

    /// Returns what units reserve together.
    pub(super) fn ask_of(&self, units: &[UnitIx]) -> Amount {
        let mut ask = Amount::default();
        units.iter().for_each(|unit| ask.add(&self.classes.get(self.unit(*unit).class).reserve));
        ask
    }

    /// Returns the keys that a unit is spread over: those it has to, then those it wishes with their weight.
    pub(super) fn spread_keys(&self, unit: UnitIx) -> impl Iterator<Item = (&str, i32)> {
        let class = self.classes.get(self.unit(unit).class);
        let hard = class.requirements.spread.iter().map(|key| (key.as_str(), 0));
        hard.chain(class.wishes.spread.iter().map(|(weight, key)| (key.as_str(), *weight)))
    }

    pub(super) fn value_of(&self, slot: Slot, key: &str) -> Option<&str> {
        self.machine(slot).view.as_ref()?.metadata.get(key).map(String::as_str)
    }

    /// Returns on which living machines the others of a unit's template are, and how many.
    pub(super) fn siblings_placed(&self, unit: UnitIx) -> Vec<(Slot, u32)> {
        let it = self.unit(unit);
        let Some(siblings) = it.siblings else { return Vec::new() };
        let tally = &self.patterns.get(siblings).placed;
        let living = tally.any().iter().filter(|slot| self.lives(*slot));
        living.map(|slot| (slot, tally.count(slot) - u32::from(it.placed.contains(slot)))).collect()
    }

    fn worth(&self, units: &[UnitIx], ask: &Amount, slot: Slot) -> Worth {
        let machine = self.machine(slot);
        let share = if ask.is_empty() { 0 } else { machine.used.share_with(ask) };
        // Whom they would come to: the unit that a ranking was made for may be there itself by now.
        let wishes: i32 = units
            .iter()
            .map(|unit| self.wishes(*unit, slot, |pattern| self.patterns.get(pattern).placed.any().get(slot)))
            .sum();
        (-wishes, share, machine.load)
    }

    /// Returns the sum of the weights of a unit's wishes that a machine meets, but those of spreading.
    pub(super) fn wishes_met(&self, unit: UnitIx, slot: Slot) -> i32 {
        self.wishes(unit, slot, |pattern| self.others_placed(unit, pattern, slot) > 0)
    }

    fn wishes(&self, unit: UnitIx, slot: Slot, is_there: impl Fn(PatternIx) -> bool) -> i32 {
        let wishes = &self.classes.get(self.unit(unit).class).wishes;
        let likes = wishes.likes.iter().filter(|(_, selector)| {
            self.selectors.get(*selector).is_some_and(|selector| selector.machines.get(slot))
        });
        let near = wishes.near.iter().filter(|(_, pattern)| is_there(*pattern));
        likes.map(|(weight, _)| *weight).chain(near.map(|(weight, _)| *weight)).sum()
    }
}
