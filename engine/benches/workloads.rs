//! The workloads that the placement core is measured by: what clusters and units look like, and what happens to them.
//!
//! Owns them for everybody who measures: the table and the instruction counts (`examples/placement_bench`) and the
//! Criterion benchmark (`benches/placement.rs`). Nothing here is random or looks at a clock: equal sizes give equal
//! facts in equal order, so that the counts can be compared from one commit to the next.

use std::{fmt, sync::Arc};

use flotilla_engine::placement::{Decision, MachineView, Placement, UnitView, Wanted};
use flotilla_registry::records::Capacity;
use flotilla_units::{Glob, Is, MachineId, Reservation, Selector, UnitName, UnitRequirements};

/// What went wrong while a workload was made or carried out: of somebody's change to the core or to this file.
pub type Failed = Box<dyn std::error::Error>;

/// How many zones there are; as many as a large region has, several times over.
const ZONES: u32 = 10;

/// What one unit reserves, where units reserve: thousandths of a processor, and bytes.
const RESERVED: (u64, u64) = (100, 1 << 30);

/// One in so many machines is left free by each template of [`Kind::Conflicts`]: where all have an instance of each,
/// a machine that is lost makes no work.
const LEFT_FREE: u32 = 10;

/// How many machines have one per cent of all units each, to be lost in turn.
const HEAVY: u32 = 3;

/// The kinds of units that issue 4 names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They ask for nothing.
    Unconstrained,
    /// One equality of metadata, which every other machine meets.
    Metadata,
    /// One instance of a template per machine, and as many templates as it takes.
    Conflicts,
    /// They reserve processor and memory, of machines that are four fifths full in the end, and the instances of
    /// each template (one for each machine) are spread over zones.
    SpreadReserving,
}

/// What happens to a full cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A unit is started, an instance of a template that is there.
    UnitAdded,
    /// A machine with as many units as the others is lost.
    MachineLost,
    /// A machine that has one per cent of all units is lost; of [`Kind::Conflicts`] it has one of each template, which
    /// is all that one machine can have.
    HundredthLost,
    /// A machine gets another zone and other disks. Where units ask for disks, all that it has leave, are proven gone
    /// and find another.
    MetadataChanged,
}

/// A cluster and the units that it is to run.
pub struct Workload {
    kind: Kind,
    machines: Vec<(MachineId, MachineView)>,
    templates: Vec<Template>,
    units: Vec<(UnitName, UnitView)>,
}

struct Template {
    stem: String,
    requirements: Arc<UnitRequirements>,
}

/// A full cluster, to which events happen.
#[derive(Clone)]
pub struct Full {
    core: Placement,
    /// How many of each event there have been.
    happened: [u32; Event::ALL.len()],
}

impl Kind {
    /// All of them, in the order of the issue.
    pub const ALL: [Self; 4] = [Self::Unconstrained, Self::Metadata, Self::Conflicts, Self::SpreadReserving];

    const fn name(self) -> &'static str {
        match self {
            Self::Unconstrained => "unconstrained",
            Self::Metadata => "metadata",
            Self::Conflicts => "conflicts",
            Self::SpreadReserving => "spread-reserving",
        }
    }

    /// How many instances a template has.
    const fn instances(self, machines: u32, units: u32) -> u32 {
        match self {
            Self::Unconstrained | Self::Metadata => units,
            Self::Conflicts => machines - machines / LEFT_FREE,
            Self::SpreadReserving => machines,
        }
    }

    fn requirements(self, stem: &str) -> Result<UnitRequirements, Failed> {
        let mut asks = UnitRequirements::default();
        match self {
            Self::Unconstrained => {}
            Self::Metadata => {
                let ssd = Is::OneOf(["ssd".to_owned()].into());
                asks.metadata.insert(Selector { key: "disk".to_owned(), is: ssd });
            }
            Self::Conflicts => {
                asks.conflicts.insert(format!("{stem}@*.service").parse::<Glob>()?);
            }
            Self::SpreadReserving => {
                let (cpu_milli, memory_bytes) = RESERVED;
                asks.reserve = Reservation { cpu_milli, memory_bytes, ..Reservation::default() };
                asks.spread.insert("zone".to_owned());
            }
        }
        Ok(asks)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::UnitAdded, Self::MachineLost, Self::HundredthLost, Self::MetadataChanged];

    /// How often it can happen to one [`Full`] cluster before it is another: machines that are lost stay lost.
    #[must_use]
    pub const fn most(self) -> u32 {
        match self {
            Self::UnitAdded => 101,
            Self::MachineLost | Self::MetadataChanged => 5,
            Self::HundredthLost => HEAVY,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::UnitAdded => "unit-added",
            Self::MachineLost => "machine-lost",
            Self::HundredthLost => "hundredth-lost",
            Self::MetadataChanged => "metadata-changed",
        })
    }
}

impl Workload {
    /// Makes the facts; nothing of the core is called.
    pub fn new(kind: Kind, machines: u32, units: u32) -> Result<Self, Failed> {
        let instances = kind.instances(machines, units);
        let templates = (0..units.div_ceil(instances)).map(|at| Template::new(kind, at));
        let templates = templates.collect::<Result<Vec<_>, Failed>>()?;
        let all = (0..units).map(|at| templates[(at / instances) as usize].instance(at % instances));
        let all = all.collect::<Result<Vec<_>, Failed>>()?;
        let each = u64::from(units.div_ceil(machines));
        let capacity = Capacity {
            cpu_milli: RESERVED.0 * each * 5 / 4,
            memory_bytes: RESERVED.1 * each * 5 / 4,
            ..Capacity::default()
        };
        let machines = (0..machines).map(|at| Ok((machine_id(at)?, machine(at, capacity.clone()))));
        let machines = machines.collect::<Result<Vec<_>, Failed>>()?;
        Ok(Self { kind, machines, templates, units: all })
    }

    /// Returns a core that knows the machines and no unit.
    #[must_use]
    pub fn empty(&self) -> Placement {
        let mut core = Placement::new();
        self.machines.iter().for_each(|(id, view)| core.set_machine(*id, view.clone()));
        core
    }

    /// Tells of all units, as a listing of the store does.
    pub fn tell(&self, core: &mut Placement) {
        self.units.iter().for_each(|(name, view)| core.set_unit(name, view.clone()));
    }

    /// Has everything decided; the number of placements.
    pub fn place(&self, core: &mut Placement) -> Result<usize, Failed> {
        let placed = core.decide(usize::MAX).len();
        if placed != self.units.len() {
            return Err(format!("{placed} of {} units were placed", self.units.len()).into());
        }
        Ok(placed)
    }

    /// Returns a cluster that runs everything, with a few machines that have one per cent of all units each.
    pub fn full(&self) -> Result<Full, Failed> {
        let mut core = self.empty();
        self.tell(&mut core);
        let share = self.units.len() / 100;
        let mut told = 0;
        if self.kind != Kind::Conflicts {
            for (at, units) in (0..HEAVY).zip(self.units.chunks(share.max(1))) {
                let (machine, _) = &self.machines[heavy(at)];
                units.iter().for_each(|(name, _)| core.set_placed(name, *machine));
                told += units.len();
            }
        }
        let placed = told + core.decide(usize::MAX).len();
        if placed != self.units.len() {
            return Err(format!("{placed} of {} units are placed", self.units.len()).into());
        }
        Ok(Full { core, happened: [0; Event::ALL.len()] })
    }

    /// How often an event can happen: what happens to machines is left out where there are too few to have one each.
    #[must_use]
    pub fn most(&self, event: Event) -> u32 {
        let needed = ordinary(Event::MachineLost.most() + Event::MetadataChanged.most());
        match event {
            Event::UnitAdded => event.most(),
            _ if self.machines.len() < needed => 0,
            _ => event.most(),
        }
    }

    /// Makes an event: what is done by [`Happening::carry_out`] is what it costs.
    fn next(&self, event: Event, full: &Full) -> Result<Happening, Failed> {
        let nth = full.happened[event as usize];
        if nth >= self.most(event) {
            return Err(format!("{event} happens {nth} times at most, and has").into());
        }
        Ok(match event {
            Event::UnitAdded => {
                let template = &self.templates[nth as usize % self.templates.len()];
                // Beyond all that the template has.
                let (name, view) = template.instance(u32::MAX - nth)?;
                Happening::Added(name, view)
            }
            Event::MachineLost => Happening::Lost(self.machines[ordinary(nth)].0),
            Event::HundredthLost => Happening::Lost(self.machines[heavy(nth)].0),
            Event::MetadataChanged => {
                let (id, view) = &self.machines[ordinary(Event::MachineLost.most() + nth)];
                let mut view = view.clone();
                view.metadata.insert("zone".to_owned(), "z-other".to_owned());
                view.metadata.insert("disk".to_owned(), "hdd".to_owned());
                Happening::Changed(*id, view)
            }
        })
    }

    /// How many decisions an event leads to.
    fn expected(&self, happening: &Happening, core: &Placement) -> usize {
        match happening {
            Happening::Added(..) => 1,
            Happening::Changed(..) if self.kind != Kind::Metadata => 0,
            // Each unit leaves and goes elsewhere.
            Happening::Lost(id) | Happening::Changed(id, _) => 2 * core.load(*id) as usize,
        }
    }

    /// Has an event happen, and looks whether what had to be done for it was; `around` may measure.
    pub fn happen<T>(
        &self,
        event: Event,
        full: &mut Full,
        around: impl FnOnce(&mut dyn FnMut() -> usize) -> T,
    ) -> Result<(T, usize), Failed> {
        let happening = self.next(event, full)?;
        let expected = self.expected(&happening, &full.core);
        let mut decided = 0;
        let measured = around(&mut || {
            decided = happening.carry_out(&mut full.core);
            decided
        });
        if decided != expected {
            return Err(format!("{event} led to {decided} decisions instead of {expected}").into());
        }
        full.happened[event as usize] += 1;
        if let Happening::Added(name, _) = happening {
            // It goes again, so that the next one meets the same cluster.
            full.core.remove_unit(&name);
            for decision in full.core.decide(usize::MAX) {
                full.core.clear_departing(decision.unit(), decision.machine());
            }
        }
        Ok((measured, decided))
    }
}

impl Template {
    fn new(kind: Kind, at: u32) -> Result<Self, Failed> {
        let stem = format!("t{at}");
        let requirements = Arc::new(kind.requirements(&stem)?);
        Ok(Self { stem, requirements })
    }

    fn instance(&self, number: u32) -> Result<(UnitName, UnitView), Failed> {
        let name = format!("{}@{number:07}.service", self.stem).parse()?;
        Ok((name, UnitView { requirements: self.requirements.clone(), wanted: Wanted::Placed }))
    }
}

/// What happens, ready to be told.
enum Happening {
    Added(UnitName, UnitView),
    Lost(MachineId),
    Changed(MachineId, MachineView),
}

impl Happening {
    /// Tells the core and has it decide all that follows; the number of decisions. What leaves a machine that
    /// lives is proven gone at once.
    fn carry_out(&self, core: &mut Placement) -> usize {
        match self {
            Self::Added(name, view) => core.set_unit(name, view.clone()),
            Self::Lost(id) => core.remove_machine(*id),
            Self::Changed(id, view) => core.set_machine(*id, view.clone()),
        }
        let mut all = 0;
        loop {
            let decisions = core.decide(usize::MAX);
            if decisions.is_empty() {
                return all;
            }
            all += decisions.len();
            for decision in decisions {
                if let (Self::Changed(..), Decision::Depart { unit, machine, .. }) = (self, decision) {
                    core.clear_departing(&unit, machine);
                }
            }
        }
    }
}

/// Every one of these has `disk=ssd`.
const fn heavy(nth: u32) -> usize {
    2 * nth as usize
}

const fn ordinary(nth: u32) -> usize {
    heavy(HEAVY + nth)
}

fn machine_id(at: u32) -> Result<MachineId, Failed> {
    Ok(format!("{:032x}", at + 1).parse()?)
}

fn machine(at: u32, capacity: Capacity) -> MachineView {
    let disk = if at.is_multiple_of(2) { "ssd" } else { "hdd" };
    let metadata = [("zone", format!("z{}", at / 2 % ZONES)), ("disk", disk.to_owned())];
    MachineView {
        host: format!("m{at}"),
        metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        schedulable: true,
        draining: false,
        capacity,
    }
}
