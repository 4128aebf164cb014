//! One transaction's worth of an operation, within the store's limits.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_units::{ContentHash, UnitName};

use crate::{
    keys::{Key, Keys},
    records::{EventChange, RangeGuard, Record as _, VERSION},
    store::{Compare, KeyRange, Operation, Revision, TXN_BYTES_MAX, TXN_OPERATIONS_MAX},
};

use super::{
    super::{
        OperationError, Written,
        interval::IntervalPlan,
        plan::{Sight, Step, Write},
        ranges::Ranges,
    },
    Effects,
};

/// What taking one instance out of its range adds at most: a range deleted and two written. The guard
/// is counted once.
const TAKE_OUT_OPERATIONS: usize = 3;

/// The bytes of one range, its key and those of the delete of another: 200 of JSON and up to 1,024 for those it
/// leaves out, two keys of a template's name and 60 bytes. 1,700 where the names are not counted.
const RANGE_BYTES: usize = 1_700;

/// What is said of a template of which nothing is.
static NO_RANGES: Ranges = Ranges::none();

/// One transaction's worth of steps.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub effects: Effects,
    /// What it changes, each with the number of who asked for it.
    pub changes: Vec<(u64, EventChange)>,
    /// Nobody else's steps are added: what is told of a range has to be of one request.
    only_for: Option<u64>,
    when: BTreeMap<String, Compare>,
    /// Templates whose ranges were looked at.
    guarded: BTreeSet<UnitName>,
    /// Templates whose ranges are changed.
    edits: BTreeMap<UnitName, Edit>,
    contents: BTreeMap<ContentHash, Operation>,
    puts: Vec<Operation>,
    bytes: usize,
}

/// A change of a template's ranges.
#[derive(Debug)]
struct Edit {
    generation: u64,
    old: Ranges,
    new: Ranges,
}

/// The chunks of one attempt, in the order in which they are written: each is planned from the ranges
/// as the one before it leaves them.
#[derive(Debug)]
pub(super) struct Packing<'a> {
    keys: &'a Keys,
    ranges: BTreeMap<UnitName, (u64, Ranges)>,
    chunks: Vec<Chunk>,
    /// How many transactions are in doubt: each takes a compare and an operation.
    in_doubt: usize,
}

/// A range that is ordered as one, and by whom.
pub(super) struct IntervalStep {
    pub number: u64,
    pub plan: IntervalPlan,
    pub template: UnitName,
    /// Where its instances' own records are, and when they were looked for.
    pub looked: (Vec<KeyRange>, Revision),
}

/// What one step adds to a transaction.
struct Parts {
    when: Vec<(String, Compare)>,
    content: Option<(ContentHash, Operation)>,
    put: Operation,
    bytes: usize,
    operations: usize,
}

impl<'a> Packing<'a> {
    pub(super) fn new(keys: &'a Keys, sight: &Sight, in_doubt: usize) -> Self {
        let said =
            sight.ranges.iter().filter_map(|(template, said)| Some((template.clone(), said.as_ref().ok()?)));
        let ranges = said.map(|(template, said)| {
            let generation = said.guard.as_ref().map_or(0, |guard| guard.record.generation);
            (template, (generation, said.ranges.clone()))
        });
        Self { keys, ranges: ranges.collect(), chunks: Vec::new(), in_doubt }
    }

    /// Returns the chunks.
    pub(super) fn finish(self) -> Vec<Chunk> {
        self.chunks
    }

    /// Returns a template's ranges as what was packed so far leaves them.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn ranges_of(&self, sight: &Sight, template: &UnitName) -> Result<&Ranges, OperationError> {
        let packed = self.ranges.get(template).map(|(_, ranges)| ranges);
        packed.map_or_else(|| sight.said(template).map(|_| &NO_RANGES), Ok)
    }

    /// Begins a chunk with an interval.
    pub(super) fn add_interval(&mut self, step: IntervalStep) {
        let IntervalStep { number, plan, template, looked: (keys_of_own, looked) } = step;
        let Some(ranges) = plan.ranges else { return };
        let mut chunk = Chunk { only_for: Some(number), ..Chunk::default() };
        for own in keys_of_own {
            chunk.when.insert(own.start.clone(), Compare::Unwritten(own, looked));
        }
        if let Some((template, written)) = plan.template {
            let key = self.keys.spell(&Key::Unit(template));
            chunk.when.insert(key.clone(), seen(key, written));
        }
        chunk.guard(self.keys, &template);
        self.edit(&mut chunk, &template, |old| *old = ranges);
        chunk.bytes = plan.parts.len() * (RANGE_BYTES + 3 * template.as_str().len());
        chunk.effects.interval = Some((number, plan.to, plan.parts));
        chunk.changes.push((number, plan.change));
        self.chunks.push(chunk);
    }

    /// Adds the steps of a request: to the last chunk if all of them fit there, else to one of their own, or to
    /// several. False, and nothing is added, if they are to be `whole` and are too many for one.
    pub(super) fn add(&mut self, number: u64, steps: Vec<Step>, whole: bool) -> bool {
        let write = |step: Step| Some((step.written, step.write?));
        let of = |(written, write): (Written, Write)| {
            (self.parts(&written.unit, written.revision, &write), written, write)
        };
        let steps: Vec<_> = steps.into_iter().filter_map(write).map(of).collect();
        if steps.is_empty() {
            return true;
        }
        let before = whole.then(|| (self.chunks.len(), self.ranges.clone()));
        let fits = |chunk: &Chunk| match chunk.only_for {
            // The rest goes into those behind it.
            Some(only) => only == number,
            None => chunk.has_room_for(steps.iter().map(|(parts, ..)| parts), self.in_doubt),
        };
        if !self.chunks.last().is_some_and(fits) {
            self.chunks.push(Chunk::default());
        }
        for (parts, written, write) in steps {
            self.add_one(number, parts, written, write);
        }
        match before {
            Some((chunks, ranges)) if self.chunks.len() > chunks + 1 => {
                self.chunks.truncate(chunks);
                self.ranges = ranges;
                false
            }
            _ => true,
        }
    }

    /// Adds a step to the last chunk, or begins one with it.
    fn add_one(&mut self, number: u64, parts: Parts, written: Written, write: Write) {
        let mut chunk = match self.chunks.pop() {
            Some(chunk) if chunk.has_room_for([&parts], self.in_doubt) => chunk,
            full => {
                self.chunks.extend(full);
                Chunk::default()
            }
        };
        if let Some(template) = &write.guard {
            chunk.guard(self.keys, template);
            // One that is being destroyed, by what this errand does to it before, stays as it is: the
            // leader removes it as a whole.
            let ranges = self.ranges.get(template).map(|(_, ranges)| ranges);
            let stays = |number| ranges.and_then(|it| it.at(number)).is_none_or(|it| it.record.deleting);
            if let Some(number) = write.take_out.filter(|number| !stays(*number)) {
                self.edit(&mut chunk, template, |ranges| ranges.take_out(number));
            }
        }
        chunk.bytes += parts.bytes;
        chunk.when.extend(parts.when);
        chunk.contents.extend(parts.content);
        chunk.puts.push(parts.put);
        chunk.changes.extend(write.changes.into_iter().map(|change| (number, change)));
        chunk.effects.units.push((number, written));
        self.chunks.push(chunk);
    }

    fn edit(&mut self, chunk: &mut Chunk, template: &UnitName, edit: impl FnOnce(&mut Ranges)) {
        let (generation, ranges) = self.ranges.entry(template.clone()).or_default();
        let old = ranges.clone();
        edit(ranges);
        let edits = chunk.edits.entry(template.clone()).or_insert_with(|| {
            *generation += 1;
            Edit { generation: *generation, old, new: Ranges::none() }
        });
        edits.new = ranges.clone();
    }

    fn parts(&self, unit: &UnitName, written: Revision, write: &Write) -> Parts {
        let key = self.keys.spell(&Key::Unit(unit.clone()));
        let mut when = vec![(key.clone(), seen(key.clone(), written))];
        if let Some((template, written)) = &write.template {
            let key = self.keys.spell(&Key::Unit(template.clone()));
            when.push((key.clone(), seen(key, *written)));
        }
        if let Some(template) = &write.guard {
            // Only so that it is counted: what it was when is known when it is written.
            let key = self.keys.spell(&Key::RangeGuard(template.clone()));
            when.push((key.clone(), seen(key, Revision(0))));
        }
        let content = write.content.as_ref().map(|(hash, text)| {
            let key = self.keys.spell(&Key::Content(*hash));
            (*hash, Operation::Put { key, value: text.to_vec(), lease: None })
        });
        let put = Operation::Put { key, value: write.record.encode(), lease: None };
        let put_bytes = |operation: &Operation| match operation {
            Operation::Put { key, value, .. } => key.len() + value.len(),
            _ => 0,
        };
        let taken_out = usize::from(write.take_out.is_some());
        let names: usize = when.iter().map(|(key, _)| key.len()).sum();
        // The event names the unit, its changes and who asked: its key and 300 bytes for each are more than that.
        let bytes = 2 * names
            + put_bytes(&put)
            + content.as_ref().map_or(0, |(_, content)| put_bytes(content))
            + taken_out * (2 * RANGE_BYTES + 3 * unit.as_str().len())
            + write.changes.len() * (300 + unit.as_str().len());
        // The guard is one operation; counting it with each of several does no harm.
        let operations = 1 + usize::from(content.is_some()) + taken_out * (TAKE_OUT_OPERATIONS + 1);
        Parts { when, content, put, bytes, operations }
    }
}

impl Chunk {
    /// Returns the compares and writes. `guards` says when each template's guard was last written.
    pub(super) fn into_operations(
        mut self,
        keys: &Keys,
        guards: &BTreeMap<UnitName, Revision>,
    ) -> (Vec<Compare>, Vec<Operation>, Effects) {
        for template in &self.guarded {
            let key = keys.spell(&Key::RangeGuard(template.clone()));
            let written = guards.get(template).copied().unwrap_or_default();
            self.when.insert(key.clone(), seen(key, written));
        }
        let mut then: Vec<Operation> = self.contents.into_values().chain(self.puts).collect();
        for (template, edit) in self.edits {
            let key = keys.spell(&Key::RangeGuard(template.clone()));
            let guard = RangeGuard { v: VERSION, generation: edit.generation };
            then.push(Operation::Put { key, value: guard.encode(), lease: None });
            let spell = |from, to| keys.spell(&Key::Range { template: template.clone(), from, to });
            let difference = edit.old.difference(&edit.new);
            let deletes = difference.deletes.into_iter().map(|(from, to)| KeyRange::key(spell(from, to)));
            then.extend(deletes.map(Operation::Delete));
            then.extend(difference.puts.into_iter().map(|(from, to, record)| Operation::Put {
                key: spell(from, to),
                value: record.encode(),
                lease: None,
            }));
        }
        (self.when.into_values().collect(), then, self.effects)
    }

    /// Returns the templates whose guard it rewrites.
    pub(super) fn rewrites(&self) -> Vec<UnitName> {
        self.edits.keys().cloned().collect()
    }

    fn guard(&mut self, keys: &Keys, template: &UnitName) {
        self.guarded.insert(template.clone());
        let key = keys.spell(&Key::RangeGuard(template.clone()));
        self.when.insert(key.clone(), seen(key, Revision(0)));
    }

    /// Tells whether steps fit beside what is said of transactions in doubt. The event is one of the
    /// operations that the store leaves free.
    fn has_room_for<'a>(&self, steps: impl IntoIterator<Item = &'a Parts>, in_doubt: usize) -> bool {
        let most = TXN_OPERATIONS_MAX.saturating_sub(in_doubt);
        let of_ranges = self.edits.values().map(|edit| {
            let difference = edit.old.difference(&edit.new);
            1 + difference.deletes.len() + difference.puts.len()
        });
        let mut operations = self.puts.len() + self.contents.len() + of_ranges.sum::<usize>();
        let (mut bytes, mut more) = (self.bytes, BTreeSet::new());
        for parts in steps {
            operations += parts.operations;
            bytes += parts.bytes;
            more.extend(parts.when.iter().map(|(key, _)| key).filter(|key| !self.when.contains_key(*key)));
        }
        operations < most && self.when.len() + more.len() <= most && bytes <= TXN_BYTES_MAX
    }
}

/// Returns the condition that a key is as it was seen; revision zero is absence.
fn seen(key: String, written: Revision) -> Compare {
    match written {
        Revision(0) => Compare::Absent(key),
        written => Compare::ModRevision(key, written),
    }
}
