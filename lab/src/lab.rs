//! A whole lab: machines, switch and etcd, from nothing to running and back.

mod history;
mod ownership;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    command::{checked, command},
    control_group::Group,
    etcd::{Member, peer_url},
    layer, leftovers,
    machine::Machine,
    name::{MACHINES_MAX, MEMBERS_MAX, Name, Territory, machine_address, member_address},
    network::Network,
    node::Node,
};
use ownership::Ownership;

/// Machines that the kernel's default of 128 inotify instances is enough for; an
/// untrimmed machine uses up to seven.
const MACHINES_WITHOUT_INOTIFY_LIMIT: usize = 12;

/// Enough inotify instances for as many machines as a lab can have.
const INOTIFY_INSTANCES: u32 = 4096;

/// What the machines boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Image {
    /// systemd and the bus, trimmed for the quickest boot.
    #[default]
    Plain,
    /// Untrimmed, with logins and user managers.
    User,
}

/// What lab is wanted.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory that the labs of a checkout share: `target/lab`. Holds the
    /// images and etcd that `cargo xtask deps --lab` put there.
    pub directory: PathBuf,
    /// Tells labs apart.
    pub name: Name,
    /// How many machines: `m1`, `m2`, and so on.
    pub machines: usize,
    /// How many etcd members: `etcd1`, and so on. None is possible.
    pub members: usize,
    /// What the machines boot from.
    pub image: Image,
    /// Programs of the host that every machine finds in `/usr/local/bin`.
    pub programs: Vec<PathBuf>,
}

impl Options {
    /// Three machines and one etcd member.
    pub fn new(directory: impl Into<PathBuf>, name: Name) -> Self {
        Self {
            directory: directory.into(),
            name,
            machines: 3,
            members: 1,
            image: Image::default(),
            programs: Vec::new(),
        }
    }
}

/// What another process has to know to find the lab.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    image: Image,
    machine_ids: Vec<String>,
    members: usize,
}

/// A running lab. Dropping it takes it down, unless [`Lab::leave_running`] was
/// called or it was only attached to.
#[derive(Debug)]
pub struct Lab {
    territory: Territory,
    machines: Vec<Machine>,
    members: Vec<Member>,
    network: Network,
    /// Of the process whose end is the lab's end.
    ownership: Option<Ownership>,
}

impl Lab {
    /// Boots a lab and waits until every machine and etcd member answers.
    ///
    /// What an earlier lab of the name left behind when its process died is
    /// removed first.
    ///
    /// # Errors
    ///
    /// A lab of the name is up already; the image or etcd is missing; not root; or
    /// something did not start, and then all of it is taken down again.
    pub fn up(options: &Options) -> Result<Self> {
        check(options)?;
        let territory = Territory::new(&options.directory, &options.name)?;
        let ownership = Ownership::take(&territory)?;
        let left_running = Record::path(&territory).exists() && ownership::is_left_running(&territory);
        if left_running && !Group::new(territory.group())?.processes().is_empty() {
            bail!("the lab {} is up already; take it down first", options.name);
        }
        leftovers::remove(&territory).context("removing what an earlier lab left behind")?;
        let machine_ids = (0..options.machines).map(|_| random_id()).collect::<Result<_>>()?;
        let record = Record { image: options.image, machine_ids, members: options.members };
        let mut lab = Self::of(&territory, &record)?;
        lab.ownership = Some(ownership);
        // From here on, dropping the lab on an error takes it down.
        fs::create_dir_all(territory.directory()).context("making the lab's directory")?;
        record.write(&territory)?;
        lab.start(options)?;
        Ok(lab)
    }

    /// Finds a lab that another process has booted.
    pub fn attach(directory: &Path, name: &Name) -> Result<Self> {
        let territory = Territory::new(directory, name)?;
        let path = Record::path(&territory);
        let text =
            fs::read_to_string(&path).with_context(|| format!("no lab {name} is up ({})", path.display()))?;
        let record = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        Self::of(&territory, &record)
    }

    /// Takes a lab down, whoever booted it, up or half up; does nothing where there
    /// is none.
    ///
    /// # Errors
    ///
    /// A living process owns the lab; or something could not be removed.
    pub fn remove(directory: &Path, name: &Name) -> Result<()> {
        let territory = Territory::new(directory, name)?;
        let ownership = Ownership::take(&territory)?;
        leftovers::remove(&territory)?;
        ownership.end()
    }

    /// Everything of the lab that the kernel or the disk still holds, in words.
    pub fn leftovers(directory: &Path, name: &Name) -> Result<Vec<String>> {
        leftovers::find(&Territory::new(directory, name)?)
    }

    /// Takes the lab down: nothing of it is left.
    pub fn down(mut self) -> Result<()> {
        leftovers::remove(&self.territory)?;
        self.ownership.take().map_or(Ok(()), Ownership::end)
    }

    /// Lets the lab live on when this process ends; [`Lab::attach`] finds it again.
    pub fn leave_running(mut self) -> Result<()> {
        ownership::leave_running(&self.territory)?;
        self.ownership.take().map_or(Ok(()), Ownership::end)
    }

    /// Where the lab's own files are, until it is down.
    pub fn directory(&self) -> PathBuf {
        self.territory.directory()
    }

    /// The machines, in order.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The machine of a name: `m1`.
    pub fn machine(&self, name: &str) -> Result<&Machine> {
        let found = self.machines.iter().find(|machine| machine.name() == name);
        found.with_context(|| format!("no machine {name:?}; there are m1 to m{}", self.machines.len()))
    }

    /// The etcd members, in order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The etcd member of a name: `etcd1`.
    pub fn member(&self, name: &str) -> Result<&Member> {
        let found = self.members.iter().find(|member| member.name() == name);
        found.with_context(|| format!("no etcd member {name:?}; there are {}", self.members.len()))
    }

    /// Where clients inside the lab's network reach etcd.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// The network, for threads that want to be in it.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Runs `work` on a thread inside the lab's network; see [`Network::run`].
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.network.run(work)
    }

    /// Takes back every cut between pairs of nodes ([`Node::cut_from`],
    /// [`Node::cut_one_way`]). Cables that were pulled stay pulled.
    pub fn heal_pairs(&self) -> Result<()> {
        self.network.heal_pairs()
    }

    /// Puts a program into `/usr/local/bin` of every machine: an upgrade, if there
    /// was one of its name.
    pub fn install(&self, program: &Path) -> Result<()> {
        let Some((first, others)) = self.machines.split_first() else { return Ok(()) };
        let installed = first.install(program)?;
        others.iter().try_for_each(|machine| machine.install_shared(&installed))
    }

    /// Asks those of the lab's etcd members that run, with Debian's `etcdctl`: for people, and for tests that
    /// want to see what is written with other eyes than the project's own.
    pub fn etcdctl(&self, words: &[&str]) -> Result<String> {
        let mut etcdctl = self.asking(command([etcd_program(&self.territory, "etcdctl")]));
        etcdctl.args(words);
        self.in_network(|| checked(&mut etcdctl))?
    }

    fn asking(&self, mut etcdctl: Command) -> Command {
        etcdctl
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoints().join(",")))
            .args(self.members.first().map(Member::client_options).unwrap_or_default());
        etcdctl
    }

    /// The etcd members and machines as what they have in common.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        let members = self.members.iter().map(|member| &**member);
        members.chain(self.machines.iter().map(|machine| &**machine))
    }

    fn of(territory: &Territory, record: &Record) -> Result<Self> {
        let group = Group::new(territory.group())?;
        let layers = vec![layer_path(territory), image_path(territory, record.image)];
        let machine = |(number, id): (u8, &String)| {
            let name = format!("m{number}");
            Machine::new(territory, &group, &name, machine_address(number), id, layers.clone())
        };
        let numbers = 1..=u8::try_from(record.members).unwrap_or(MEMBERS_MAX);
        let urls: Vec<String> = numbers
            .clone()
            .map(|number| format!("etcd{number}={}", peer_url(member_address(number))))
            .collect();
        let member = |number: u8| {
            let program = etcd_program(territory, "etcd");
            let name = format!("etcd{number}");
            Member::new(territory, &group, &name, member_address(number), program, &urls.join(","))
        };
        Ok(Self {
            territory: territory.clone(),
            machines: (1..=MACHINES_MAX).zip(&record.machine_ids).map(machine).collect(),
            members: numbers.map(member).collect(),
            network: Network::new(territory),
            ownership: None,
        })
    }

    fn start(&self, options: &Options) -> Result<()> {
        raise_inotify_limit(options.machines)?;
        let hosts: String =
            self.nodes().map(|node| format!("{} {}\n", node.address(), node.name())).collect();
        let hosts = format!("127.0.0.1 localhost\n{hosts}");
        layer::write(&layer_path(&self.territory), options.image == Image::Plain, &hosts)?;
        for program in &options.programs {
            self.install(program)?;
        }
        self.network.create().context("making the lab's network")?;
        // Making a machine takes 0.1 s of waiting for the kernel, so all at once.
        thread::scope(|scope| {
            let members = self.members.iter().map(|member| scope.spawn(|| member.start()));
            let machines = self.machines.iter().map(|machine| scope.spawn(|| machine.boot()));
            let started: Vec<_> = members.chain(machines).collect();
            let results = started.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            results.collect::<Result<Vec<()>>>()
        })?;
        self.members.iter().try_for_each(Member::wait_healthy)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(ownership) = self.ownership.take()
            && let Err(error) = leftovers::remove(&self.territory).and_then(|()| ownership.end())
        {
            eprintln!("taking down the lab {}: {error:#}", self.territory.name());
        }
    }
}

impl Record {
    fn path(territory: &Territory) -> PathBuf {
        territory.directory().join("lab.json")
    }

    fn write(&self, territory: &Territory) -> Result<()> {
        let path = Self::path(territory);
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }
}

fn check(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the lab makes network namespaces, mounts and control groups: only root may");
    }
    if !(1..=usize::from(MACHINES_MAX)).contains(&options.machines) {
        bail!("{} machines; a lab has 1 to {MACHINES_MAX}", options.machines);
    }
    if options.members > usize::from(MEMBERS_MAX) {
        bail!("{} etcd members; a lab has at most {MEMBERS_MAX}", options.members);
    }
    let territory = Territory::new(&options.directory, &options.name)?;
    let image = image_path(&territory, options.image);
    if !image.is_dir() {
        bail!("no machine image in {}; `cargo xtask deps --lab` (or --user-image) makes it", image.display());
    }
    let etcd = etcd_program(&territory, "etcd");
    if options.members > 0 && !etcd.is_file() {
        bail!("no etcd in {}; `cargo xtask deps --lab` fetches it", etcd.display());
    }
    refuse_overlay(&options.directory)
}

/// A machine's disk is the upper layer of an overlay, which cannot lie on another
/// overlay: that is what target/ is on inside most containers.
fn refuse_overlay(directory: &Path) -> Result<()> {
    /// From linux/magic.h.
    const OVERLAYFS: u64 = 0x794c_7630;
    let kind =
        rustix::fs::statfs(directory).with_context(|| format!("looking at {}", directory.display()))?.f_type;
    if u64::try_from(kind).is_ok_and(|kind| kind == OVERLAYFS) {
        bail!("{} is on an overlay; mount an ordinary file system or a tmpfs there", directory.display());
    }
    Ok(())
}

fn raise_inotify_limit(machines: usize) -> Result<()> {
    let path = "/proc/sys/fs/inotify/max_user_instances";
    let now: u32 = fs::read_to_string(path)?.trim().parse().context("reading the inotify limit")?;
    if machines > MACHINES_WITHOUT_INOTIFY_LIMIT && now < INOTIFY_INSTANCES {
        eprintln!("raising {path} from {now} to {INOTIFY_INSTANCES}: {machines} systemds need them");
        fs::write(path, INOTIFY_INSTANCES.to_string()).context("raising the inotify limit")?;
    }
    Ok(())
}

fn layer_path(territory: &Territory) -> PathBuf {
    territory.directory().join("layer")
}

fn image_path(territory: &Territory, image: Image) -> PathBuf {
    territory.root().join("image").join(match image {
        Image::Plain => "base",
        Image::User => "user",
    })
}

fn etcd_program(territory: &Territory, name: &str) -> PathBuf {
    territory.root().join("etcd/usr/bin").join(name)
}

/// A machine id: 128 random bits, as the kernel makes them for a UUID.
fn random_id() -> Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("asking the kernel for a UUID")?;
    Ok(uuid.trim().replace('-', ""))
}

/// Says whether two paths are the same file now.
fn is_same_file(path: &Path, file: &fs::File) -> bool {
    let (Ok(here), Ok(there)) = (fs::metadata(path), file.metadata()) else { return false };
    (here.dev(), here.ino()) == (there.dev(), there.ino())
}
