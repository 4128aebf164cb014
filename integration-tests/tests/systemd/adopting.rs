//! Units of the machine's own are taken over as they run, or left exactly as they were.

use std::{collections::BTreeMap, fs, path::Path};

use flotilla_agent::{
    adoption::{AdoptionError, AdoptionSource as _, Refusal},
    systemd::{JobResult, Systemd as _, SystemdError},
};
use flotilla_integration_tests::SLEEPER;
use flotilla_units::ContentHash;

use crate::machine::{environment, evidence, get, in_machine, name, open, shell};

const KEPT: &str = "/var/lib/flotilla/adopted";

/// What tells one start of a unit from another.
fn process(unit: &str) -> String {
    shell(&format!("systemctl show --property=InvocationID,MainPID,NRestarts,ActiveState {unit}"))
}

/// Makes a service with two drop-ins, enabled, and starts it.
fn make_own(unit: &str) {
    shell(&format!(
        "cd /etc/systemd/system; mkdir -p {unit}.d; printf '{SLEEPER}[Install]\nWantedBy=multi-user.target\n' > {unit}; \
         printf '[Service]\nEnvironment=A=1\n' > {unit}.d/20-a.conf; \
         printf '[Unit]\nDescription=its own\n' > {unit}.d/10-b.conf; \
         systemctl daemon-reload; systemctl enable --quiet {unit}; systemctl start {unit}"
    ));
}

/// Everything below a folder, with what is in it.
fn tree(folder: &str) -> BTreeMap<String, String> {
    let files = shell(&format!("find {folder} -type f -printf '%p %m %T@\\n'"));
    let list = files + &shell(&format!("find {folder} -type l -printf '%p %l\\n'"));
    let each = list.lines().filter_map(|line| line.split_once(' '));
    each.map(|(path, about)| {
        (path.to_owned(), format!("{about} {}", fs::read_to_string(path).unwrap_or_default()))
    })
    .collect()
}

#[test]
fn a_unit_with_drop_ins_is_taken_over_as_it_runs() {
    in_machine("adopting::a_unit_with_drop_ins_is_taken_over_as_it_runs", async {
        let unit = name("web.service");
        let clean = tree("/etc/systemd/system");
        make_own("web.service");
        let (before, files) = (process("web.service"), tree("/etc/systemd/system"));
        let systemd = open().await;
        let found = systemd.survey(&unit).await.unwrap();
        assert_eq!(
            found.text,
            format!(
                "{SLEEPER}[Install]\nWantedBy=multi-user.target\n\n# web.service.d/10-b.conf\n[Unit]\n\
                 Description=its own\n\n# web.service.d/20-a.conf\n[Service]\nEnvironment=A=1\n"
            )
        );
        assert_eq!(found.moves.len(), 4, "{found:?}");
        let evidence_of = evidence(7, &found.text);
        systemd.take_over(&unit, &found.text, &evidence_of).await.unwrap();
        assert_eq!(
            (process("web.service"), systemd.reloads()),
            (before.clone(), 1),
            "not a thing has happened to it"
        );
        let present = get(&systemd, &unit).await;
        assert_eq!(present.evidence.map(|it| (it.token, it.started)), Some((evidence_of.token, true)));
        assert_eq!(present.file, Some(ContentHash::of(found.text.as_bytes())));
        let status = |what| shell(&format!("systemctl show --value --property={what} web.service"));
        assert_eq!(status("FragmentPath"), "/run/systemd/system/web.service\n");
        assert_eq!(
            (status("NeedDaemonReload"), status("Description")),
            ("no\n".to_owned(), "its own\n".to_owned())
        );
        assert!(!environment(&systemd, &unit).await.contains("FLOTILLA_TOKEN"), "it was started without");
        assert_eq!(tree("/etc/systemd/system"), clean, "nothing of it is left");
        // Another agent finds it as any other of its units; taking it again does nothing.
        let again = open().await;
        assert!(again.list().await.unwrap()[0].evidence.as_ref().unwrap().started);
        again.take_over(&unit, &found.text, &evidence_of).await.unwrap();
        assert!(matches!(again.survey(&unit).await, Err(AdoptionError::Refused { why: Refusal::Ours, .. })));
        assert_eq!(process("web.service"), before);
        // Stopped and started, it is under its token, with what its drop-ins said.
        assert_eq!(again.stop(&unit).await.unwrap(), JobResult::Done);
        assert_eq!(again.start(&unit, &evidence(8, &found.text)).await.unwrap(), JobResult::Done);
        let environment = environment(&again, &unit).await;
        assert!(environment.contains("FLOTILLA_TOKEN=8") && environment.contains("A=1"), "{environment}");
        // Undone as the documentation says.
        again.stop(&unit).await.unwrap();
        again.remove(&unit).await.unwrap();
        shell(&format!(
            "cp -a {KEPT}/web.service/files/. / && systemctl daemon-reload && systemctl start web.service"
        ));
        assert_eq!(tree("/etc/systemd/system"), files, "as it was, times and modes too");
        assert_eq!(shell("systemctl is-enabled web.service"), "enabled\n");
        // And adopted once more: what was kept before is kept.
        again.take_over(&unit, &found.text, &evidence(9, &found.text)).await.unwrap();
        assert_eq!(fs::read_dir(KEPT).unwrap().count(), 2);
    });
}

#[test]
fn a_packages_file_is_overridden_also_after_it_has_left() {
    in_machine("adopting::a_packages_file_is_overridden_also_after_it_has_left", async {
        let unit = name("pkg.service");
        shell(&format!(
            "printf '{SLEEPER}[Install]\nWantedBy=multi-user.target\n' > /usr/lib/systemd/system/pkg.service; \
             mkdir -p /etc/systemd/system/pkg.service.d; printf '[Service]\nEnvironment=A=1\n' \
             > /etc/systemd/system/pkg.service.d/a.conf; \
             systemctl daemon-reload; systemctl enable --quiet --now pkg.service"
        ));
        let (systemd, before) = (open().await, process("pkg.service"));
        let found = systemd.survey(&unit).await.unwrap();
        assert_eq!((found.moves.len(), found.stays.len()), (2, 1), "{found:?}");
        systemd.take_over(&unit, &found.text, &evidence(1, &found.text)).await.unwrap();
        assert_eq!(process("pkg.service"), before);
        assert_eq!(
            shell("systemctl show --value --property=FragmentPath pkg.service"),
            "/run/systemd/system/pkg.service\n"
        );
        assert!(!Path::new("/etc/systemd/system/multi-user.target.wants/pkg.service").exists());
        // It goes, and comes back as any other unit would, beside the package's file.
        systemd.stop(&unit).await.unwrap();
        systemd.remove(&unit).await.unwrap();
        shell(
            "systemctl daemon-reload; systemctl show --value --property=FragmentPath pkg.service >/dev/null",
        );
        // As after a boot, with the order to take it over still there.
        systemd.take_over(&unit, &found.text, &evidence(1, &found.text)).await.unwrap();
        assert_eq!((systemd.get(&unit).await.unwrap(), fs::read_dir(KEPT).unwrap().count()), (None, 1));
        systemd.install(&unit, SLEEPER).await.unwrap();
        assert_eq!(systemd.start(&unit, &evidence(2, SLEEPER)).await.unwrap(), JobResult::Done);
        assert_eq!(get(&systemd, &unit).await.state.active, "active");
        assert!(environment(&systemd, &unit).await.contains("FLOTILLA_TOKEN=2"));
    });
}

#[test]
fn what_is_given_back_is_as_it_was_and_what_changed_is_not_taken() {
    in_machine("adopting::what_is_given_back_is_as_it_was_and_what_changed_is_not_taken", async {
        let unit = name("web.service");
        make_own("web.service");
        let (before, files) = (process("web.service"), tree("/etc/systemd/system"));
        let systemd = open().await;
        let found = systemd.survey(&unit).await.unwrap();
        let other = format!("{}Nice=1\n", found.text);
        let refused = systemd.take_over(&unit, &other, &evidence(1, &other)).await;
        assert!(matches!(&refused, Err(SystemdError::NotTaken { .. })), "{refused:?}");
        assert_eq!((systemd.get(&unit).await.unwrap(), systemd.reloads()), (None, 0));
        // As an agent that was killed after it had removed the originals and before it told systemd.
        shell("mount -o bind,ro /run/systemd/system /run/systemd/system");
        let refused = systemd.take_over(&unit, &found.text, &evidence(1, &found.text)).await;
        assert!(matches!(&refused, Err(SystemdError::File { .. })), "{refused:?}");
        shell("umount /run/systemd/system; rm /etc/systemd/system/web.service.d/20-a.conf");
        systemd.let_go(&unit).await.unwrap();
        assert_eq!((tree("/etc/systemd/system"), process("web.service")), (files.clone(), before.clone()));
        assert_eq!(systemd.get(&unit).await.unwrap(), None);
        assert!(!Path::new(KEPT).join("web.service").exists());
        assert_eq!(shell("systemctl show --value --property=NeedDaemonReload web.service"), "no\n");
        // Begun by one agent and ended by another, with half of it gone from its place.
        shell("mount -o bind,ro /run/systemd/system /run/systemd/system");
        assert!(systemd.take_over(&unit, &found.text, &evidence(1, &found.text)).await.is_err());
        shell("umount /run/systemd/system; rm /etc/systemd/system/web.service.d/20-a.conf");
        let again = open().await;
        again.take_over(&unit, &found.text, &evidence(1, &found.text)).await.unwrap();
        assert_eq!(process("web.service"), before);
        assert!(get(&again, &unit).await.evidence.unwrap().started);
    });
}

/// Its requirements, say, were changed in the cluster before its machine came to take it over.
#[test]
fn a_text_that_runs_alike_is_taken_for_the_one_it_was_adopted_with() {
    in_machine("adopting::a_text_that_runs_alike_is_taken_for_the_one_it_was_adopted_with", async {
        let unit = name("web.service");
        make_own("web.service");
        let (systemd, before) = (open().await, process("web.service"));
        let found = systemd.survey(&unit).await.unwrap();
        let quiet = format!("{}[X-Flotilla]\nMachineMetadata=disk=ssd\n", found.text);
        systemd.take_over(&unit, &quiet, &evidence(1, &quiet)).await.unwrap();
        assert_eq!(process("web.service"), before);
        let (present, text) = (get(&systemd, &unit).await, ContentHash::of(found.text.as_bytes()));
        // The newer one is noted and written as any other that runs alike.
        assert_eq!((present.file, present.evidence.map(|it| it.hash)), (Some(text), Some(text)));
    });
}

/// An agent was killed between the last mark and the ledger's end, or its disk was full just then.
#[test]
fn what_was_taken_over_is_not_given_back_when_it_leaves_although_its_ledger_was_not_finished() {
    let test =
        "adopting::what_was_taken_over_is_not_given_back_when_it_leaves_although_its_ledger_was_not_finished";
    in_machine(test, async {
        let unit = name("web.service");
        make_own("web.service");
        let systemd = open().await;
        let found = systemd.survey(&unit).await.unwrap();
        systemd.take_over(&unit, &found.text, &evidence(1, &found.text)).await.unwrap();
        let taken = tree("/etc/systemd/system");
        let ledger = format!("{KEPT}/web.service/ledger.json");
        for ours in ["", "s/\"ours\": true,//;"] {
            shell(&format!("sed -i '{ours}s/\"taking\": false/\"taking\": true/' {ledger}"));
            assert!(fs::read_to_string(&ledger).unwrap().contains("\"taking\": true"));
            // The agent that left it so goes on, or the next one does.
            for systemd in [&systemd, &open().await] {
                systemd.let_go(&unit).await.unwrap();
                assert_eq!(tree("/etc/systemd/system"), taken);
            }
            shell(&format!("sed -i '{ours}s/\"taking\": false/\"taking\": true/' {ledger}"));
        }
        // It leaves, and the order to let go comes once more.
        systemd.stop(&unit).await.unwrap();
        systemd.remove(&unit).await.unwrap();
        systemd.let_go(&unit).await.unwrap();
        assert_eq!(tree("/etc/systemd/system"), taken, "it may run elsewhere by now");
        assert!(Path::new(KEPT).join("web.service/files/etc/systemd/system/web.service").exists());
    });
}

#[test]
fn what_cannot_be_taken_over_is_told_and_not_touched() {
    in_machine("adopting::what_cannot_be_taken_over_is_told_and_not_touched", async {
        shell(&format!(
            "cd /etc/systemd/system; for u in alias needed socketed new edited early tem@ rests; do \
             printf '{SLEEPER}' > $u.service; done; \
             printf '[Unit]\nBefore=network.target\n{SLEEPER}' > early.service; ln -s alias.service other.service; \
             printf '[Unit]\nRequires=needed.service\n{SLEEPER}' > needs.service; \
             printf '[Socket]\nListenStream=/run/s\n' > socketed.socket; systemctl daemon-reload; \
             systemctl start alias needs socketed.socket socketed new edited early tem@1 rests; systemctl stop rests; \
             mkdir new.service.d; echo '[Service]' > new.service.d/a.conf; echo '# edited' >> edited.service; \
             systemd-run --quiet --unit=trans sleep infinity"
        ));
        let (systemd, files) = (open().await, tree("/etc/systemd/system"));
        let rows = [
            ("alias.service", "several names"),
            ("needed.service", "needs.service"),
            ("socketed.service", "socketed.socket"),
            ("socketed.socket", "only services"),
            ("new.service", "daemon-reload"),
            ("edited.service", "daemon-reload"),
            ("early.service", "network.target"),
            ("tem@1.service", "instances"),
            ("rests.service", "inactive"),
            ("trans.service", "it is transient"),
            ("nothing.service", "not-found"),
            ("dbus.service", "speaks to systemd"),
            ("systemd-journald.service", "part of systemd"),
        ];
        for (unit, why) in rows {
            match systemd.survey(&name(unit)).await {
                Err(e @ AdoptionError::Refused { .. }) if e.to_string().contains(why) => {}
                other => panic!("{unit}: {other:?}"),
            }
        }
        assert_eq!(tree("/etc/systemd/system"), files);
        assert!(systemd.list().await.unwrap().is_empty() && systemd.reloads() == 0);
    });
}
