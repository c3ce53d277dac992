//! Programs that know when a filesystem lies: databases, version control, archivers, on a mount whose files are coded
//! while they work.
//!
//! A program that is not installed fails its test in CI (`CI=true`); elsewhere the test says what it did not run.

mod mounted;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mounted::{Dice, Mount, arg, ok, plant_tree, same_attributes, same_trees};

/// Coding starts soon, by the fast method: what is written is coded while programs still use it.
const FAST: [&str; 4] = ["--quiet-seconds", "0.1", "--method", "zstd"];

fn temp() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tersefs-t5-").tempdir().unwrap()
}

/// The path of a program, or of the first that exists; what to install where there is none.
fn program(names: &[&str], package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = names.iter().flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)));
    if let Some(found) = found.into_iter().find(|p| p.is_file()) {
        return Some(found);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing: apt-get install {package}", names[0]);
    eprintln!("NOT RUN: {} is missing (apt-get install {package})", names[0]);
    None
}

/// Codes all that is quiet, again and again, while a test works.
struct Coding {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Coding {
    fn start(mount: &Mount) -> Coding {
        let stop = Arc::new(AtomicBool::new(false));
        let (point, ended) = (mount.point.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                mounted::tersefs(&["wait", arg(&point)]);
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
        });
        Coding { stop, thread: Some(thread) }
    }
}

impl Drop for Coding {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn sqlite_with_a_write_ahead_log() {
    let Some(sqlite) = program(&["sqlite3"], "sqlite3") else { return };
    let dir = temp();
    let mount = Mount::new(dir.path(), &FAST);
    let db = mount.path("data.db");
    let sql = |text: &str| ok(arg(&sqlite), &["-cmd", ".timeout 20000", arg(&db), text], 120);
    assert_eq!(sql("pragma journal_mode=wal;").trim(), "wal", "shared memory of the log is a shared mapping");
    sql("create table t(id integer primary key, who integer, body text);");
    let coding = Coding::start(&mount);
    std::thread::scope(|scope| {
        for who in 0..3 {
            scope.spawn(move || {
                for _ in 0..20 {
                    sql(&format!(
                        "begin immediate; insert into t(who, body) select {who}, printf('%.*c', 400, 'x') \
                         from (with recursive n(i) as (select 1 union all select i+1 from n where i<100) \
                         select i from n); commit;"
                    ));
                }
            });
        }
    });
    drop(coding);
    let sums = "select who, count(*), sum(length(body)) from t group by who order by who;";
    let expected = "0|2000|800000\n1|2000|800000\n2|2000|800000\n";
    assert_eq!(sql(sums), expected);
    assert_eq!(sql("pragma integrity_check;").trim(), "ok");
    mount.done();
    let mount = Mount::new(dir.path(), &FAST);
    assert!(mount.stat("data.db")["stored_bytes"].as_u64().unwrap() > 0, "it is coded");
    assert_eq!(sql(sums), expected);
    assert_eq!(sql("pragma integrity_check;").trim(), "ok");
    sql("update t set body = 'short' where id % 7 = 0; vacuum;");
    assert_eq!(sql("pragma integrity_check;").trim(), "ok");
    mount.done();
}

#[test]
fn git_clones_commits_and_checks() {
    let Some(git) = program(&["git"], "git") else { return };
    let dir = temp();
    let origin = dir.path().join("origin");
    plant_tree(&origin, 200);
    let git = |at: &Path, args: &[&str]| {
        let mut all = vec!["-C", arg(at), "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0"];
        all.extend(args);
        ok(arg(&git), &all, 300)
    };
    git(&origin, &["init", "-q"]);
    git(&origin, &["add", "-A"]);
    git(&origin, &["commit", "-qm", "one"]);
    let mount = Mount::new(dir.path(), &FAST);
    let clone = mount.path("clone");
    git(dir.path(), &["clone", "-q", "--no-local", arg(&origin), arg(&clone)]);
    let coding = Coding::start(&mount);
    for n in 0..10 {
        fs::write(clone.join("text"), format!("version {n}\n").repeat(1000)).unwrap();
        git(&clone, &["commit", "-qam", "more"]);
    }
    git(&clone, &["gc", "-q", "--aggressive", "--prune=now"]);
    git(&clone, &["checkout", "-q", "HEAD~5"]);
    drop(coding);
    mount.wait();
    git(&clone, &["fsck", "--full", "--strict"]);
    assert_eq!(git(&clone, &["status", "--porcelain"]), "");
    mount.done();
    let mount = Mount::new(dir.path(), &FAST);
    git(&clone, &["fsck", "--full", "--strict"]);
    assert_eq!(git(&clone, &["status", "--porcelain"]), "", "times and sizes are what the index of git has");
    mount.done();
}

#[test]
fn archivers_copy_everything_both_ways() {
    let (Some(rsync), Some(tar)) = (program(&["rsync"], "rsync"), program(&["tar"], "tar")) else { return };
    let Some(setfacl) = program(&["setfacl"], "acl") else { return };
    let dir = temp();
    let tree = dir.path().join("tree");
    plant_tree(&tree, 300);
    for (file, user) in [("text", 1000), ("noise", 1001)] {
        ok(arg(&setfacl), &["-m", &format!("u:{user}:rw"), arg(&tree.join(file))], 10);
        mounted::sys::set_xattr(&tree.join(file), "user.origin", b"planted \0 here", 0).unwrap();
    }
    fs::create_dir(tree.join("shared")).unwrap();
    fs::set_permissions(tree.join("shared"), fs::Permissions::from_mode(0o3771)).unwrap();
    ok(arg(&setfacl), &["-d", "-m", "g:1234:rwx", arg(&tree.join("shared"))], 10);
    // rsync takes times within one second for equal.
    ok("find", &[arg(&tree), "-exec", "touch", "-h", "-d", "2021-03-04 05:06:07.891011121 UTC", "{}", "+"], 60);
    let mount = Mount::new(dir.path(), &FAST);
    let rsync = |from: &Path, to: &Path, extra: &[&str]| {
        let (from, to) = (format!("{}/", from.display()), format!("{}/", to.display()));
        let mut args = vec!["-aHAXS", "--checksum", "--numeric-ids"];
        args.extend(extra);
        args.extend([from.as_str(), to.as_str()]);
        ok(arg(&rsync), &args, 300)
    };
    let copy = mount.path("copy");
    rsync(&tree, &copy, &[]);
    mount.wait();
    same_trees(&tree, &copy);
    same_attributes(&tree, &copy);
    let differs = |a: &Path, b: &Path| rsync(a, b, &["--dry-run", "--itemize-changes", "--delete"]);
    assert_eq!(differs(&tree, &copy), "", "nothing is left to copy, ACLs and attributes included");
    let archive = mount.path("copy.tar");
    ok(arg(&tar), &["--acls", "--xattrs", "--numeric-owner", "-S", "-C", arg(&copy), "-cf", arg(&archive), "."], 120);
    mount.done();
    let mount = Mount::new(dir.path(), &FAST);
    assert_eq!(differs(&tree, &copy), "", "after a remount");
    let out = mount.path("unpacked");
    fs::create_dir(&out).unwrap();
    ok(arg(&tar), &["--acls", "--xattrs", "--numeric-owner", "-C", arg(&out), "-xpf", arg(&archive)], 120);
    assert_eq!(differs(&tree, &out), "");
    let home = dir.path().join("home");
    rsync(&out, &home, &[]);
    same_trees(&tree, &home);
    same_attributes(&tree, &home);
    let sparse = fs::metadata(home.join("sparse")).unwrap();
    assert!(sparse.blocks() < 100 && sparse.len() == 5_000_000, "holes stay holes");
    mount.done();
}

#[test]
fn postgres_under_load_and_after_a_crash() {
    // Debian keeps the programs of the server outside PATH, by version.
    let home = fs::read_dir("/usr/lib/postgresql").ok().and_then(|mut d| d.next()?.ok()).map(|e| e.path().join("bin"));
    let Some(bin) = home.or_else(|| Some(program(&["initdb"], "postgresql")?.parent()?.to_path_buf())) else { return };
    let dir = temp();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mount = Mount::new(dir.path(), &FAST);
    let data = mount.path("postgres");
    fs::create_dir(&data).unwrap();
    // The server refuses to run as root: its user comes with the package.
    ok("chown", &["postgres", arg(&data)], 10);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let socket = dir.path().join("socket");
    fs::create_dir(&socket).unwrap();
    ok("chown", &["postgres", arg(&socket)], 10);
    let (cluster, socket) = (data.join("cluster"), arg(&socket).to_string());
    let pg = |name: &str, args: &[&str]| {
        let program = bin.join(name);
        let mut all = vec!["-u", "postgres", "--", arg(&program)];
        all.extend(args);
        ok("runuser", &all, 300)
    };
    let start = || {
        // Only a socket in a directory of the test: no port is opened.
        let options = format!("-k {socket} -c listen_addresses= -c fsync=on -c full_page_writes=on");
        let log = format!("{socket}/log");
        pg("pg_ctl", &["-D", arg(&cluster), "-o", &options, "-l", &log, "-w", "-s", "start"]);
    };
    pg("initdb", &["-D", arg(&cluster), "--data-checksums", "-E", "UTF8", "--no-instructions"]);
    start();
    pg("pgbench", &["-h", &socket, "-i", "-s", "1", "-q", "postgres"]);
    let coding = Coding::start(&mount);
    let said = pg("pgbench", &["-h", &socket, "-c", "4", "-t", "100", "postgres"]);
    assert!(said.contains("processed: 400/400"), "{said}");
    drop(coding);
    let sums = "select sum(abalance), (select sum(bbalance) from pgbench_branches), \
                (select sum(delta) from pgbench_history), (select count(*) from pgbench_history) from pgbench_accounts";
    let query = || pg("psql", &["-h", &socket, "-At", "-c", sums, "postgres"]);
    let before = query();
    let fields: Vec<&str> = before.trim().split('|').collect();
    assert!(fields[0] == fields[1] && fields[1] == fields[2] && fields[3] == "400", "{before}");
    // The server dies without a shutdown; it recovers from its log.
    pg("pg_ctl", &["-D", arg(&cluster), "-m", "immediate", "-s", "stop"]);
    mount.wait();
    start();
    assert_eq!(query(), before, "after its crash recovery");
    pg("pg_ctl", &["-D", arg(&cluster), "-m", "fast", "-w", "-s", "stop"]);
    pg("pg_checksums", &["--check", "-D", arg(&cluster)]);
    mount.done();
    let mount = Mount::new(dir.path(), &FAST);
    pg("pg_checksums", &["--check", "-D", arg(&cluster)]);
    start();
    assert_eq!(query(), before, "after a remount");
    pg("pg_ctl", &["-D", arg(&cluster), "-m", "fast", "-w", "-s", "stop"]);
    mount.done();
}

/// Several writers through shared mappings and ordinary writes at once, each in its own pages, coded in between.
#[test]
fn mappings_and_writes_of_one_file_do_not_lose_each_other() {
    const PAGES: usize = 256;
    const PAGE: usize = 4096;
    let dir = temp();
    let mount = Mount::new(dir.path(), &FAST);
    let path = mount.path("mapped");
    File::create(&path).unwrap().set_len((PAGES * PAGE) as u64).unwrap();
    let mut expected = vec![0u8; PAGES * PAGE];
    let mut dice = Dice(11);
    for round in 0..6u8 {
        let pages: Vec<(usize, u8)> = (0..60).map(|_| (dice.below(PAGES as u64) as usize, round + 1)).collect();
        {
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let mut map = mounted::sys::Mapping::shared(&file, PAGES * PAGE).unwrap();
            for (n, (page, value)) in pages.iter().enumerate() {
                let at = page * PAGE;
                if n % 2 == 0 {
                    map.bytes()[at..at + PAGE].fill(*value);
                } else {
                    std::os::unix::fs::FileExt::write_all_at(&file, &vec![*value; PAGE], at as u64).unwrap();
                }
                expected[at..at + PAGE].fill(*value);
            }
            if round % 2 == 0 {
                map.sync().unwrap();
            }
            (&file).flush().unwrap();
        }
        assert!(fs::read(&path).unwrap() == expected, "round {round}");
        if round % 3 == 1 {
            mount.wait();
            assert!(fs::read(&path).unwrap() == expected, "round {round} coded");
        }
    }
    mount.done();
    let mount = Mount::new(dir.path(), &FAST);
    assert!(fs::read(&path).unwrap() == expected, "after a remount");
    mount.done();
}
