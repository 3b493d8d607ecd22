//! A PostgreSQL of our own for tests: made in a scratch folder, ended and removed when the test program ends, however it
//! ends. Or the server that `SLUICEGATE_TEST_POSTGRES` names, as an address without a database.

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sluicegate::config::Secret;
use sluicegate::inbox::postgres::{PostgresInbox, PostgresOptions};

/// A server that runs.
pub struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    /// Closed with this process, by which the server's keeper knows.
    _keeper: Option<(Child, ChildStdin)>,
    address: String,
}

/// The one that most tests share.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| match std::env::var("SLUICEGATE_TEST_POSTGRES") {
        Ok(address) => Cluster {
            folder: PathBuf::new(),
            bin: PathBuf::new(),
            _keeper: None,
            address: address.trim_end_matches('/').to_owned(),
        },
        Err(_) => Cluster::start(),
    })
}

impl Cluster {
    /// A server for one test, which may stop it.
    pub fn start() -> Self {
        let bin = find().expect("PostgreSQL's own programs (initdb, pg_ctl): package postgresql");
        let folder = std::env::temp_dir().join(format!("sluicegate-pg-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        give_away(&folder);
        let data = folder.join("data");
        let made = own(&bin.join("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-A", "trust", "-U", "sluicegate"])
            .output();
        let made = made.unwrap();
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let socket = folder.display().to_string().replace('/', "%2F");
        let mut cluster = Self {
            address: format!("postgres://sluicegate@{socket}"),
            folder,
            bin,
            _keeper: None,
        };
        // Ends the server when the pipe to this process closes.
        let mut keeper = own(Path::new("sh"))
            .arg("-c")
            .arg("read -r _; \"$0/pg_ctl\" -D \"$1/data\" -m immediate stop >/dev/null 2>&1; rm -rf \"$1\"")
            .arg(&cluster.bin)
            .arg(&cluster.folder)
            .stdin(Stdio::piped())
            // It outlives the test program by a moment, and must not keep the reader of its output waiting.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pipe = keeper.stdin.take().unwrap();
        cluster._keeper = Some((keeper, pipe));
        cluster.run();
        cluster
    }

    /// Starts it again after [`Cluster::stop`].
    pub fn run(&self) {
        let settings = format!(
            "-c listen_addresses='' -k {} -c fsync=on -c max_connections=200 -c shared_buffers=256MB",
            self.folder.display()
        );
        let log = self.folder.join("log");
        let started = own(&self.bin.join("pg_ctl"))
            .arg("-D")
            .arg(self.folder.join("data"))
            .arg("-l")
            .arg(&log)
            .args(["-w", "-o", &settings, "start"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(
            started.success(),
            "{}",
            std::fs::read_to_string(log).unwrap_or_default()
        );
    }

    /// Stops it as a power cut would.
    pub fn stop(&self) {
        let stopped = own(&self.bin.join("pg_ctl"))
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-m", "immediate", "stop"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(stopped.success());
    }

    /// A database of its own, still empty.
    pub async fn database(&self) -> Secret {
        let name = format!("t{:016x}", fastrand::u64(..));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))
            .await;
        Secret::new(
            "env:SLUICEGATE_TEST_POSTGRES",
            format!("{}/{name}", self.address),
        )
    }

    /// A database of its own with the schema in it.
    pub async fn migrated(&self) -> Secret {
        let url = self.database().await;
        PostgresInbox::migrate(&url).await.unwrap();
        url
    }

    async fn sql(&self, database: &str, sql: &str) {
        let client = connect(&format!("{}/{database}", self.address)).await;
        client.batch_execute(sql).await.unwrap();
    }
}

/// A plain connection.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

/// A connection to a database that an inbox is in.
pub async fn beside(url: &Secret) -> tokio_postgres::Client {
    let client = connect(url.expose_text().unwrap()).await;
    client
        .batch_execute("SET search_path TO sluicegate")
        .await
        .unwrap();
    client
}

/// As tests run an inbox.
pub fn options(lease: Duration) -> PostgresOptions {
    PostgresOptions {
        batch: 64,
        queue: 256,
        lease,
        connections: 8,
        search: false,
        max_disk: None,
    }
}

/// Waits until something holds, and fails when it does not within a time.
pub async fn within<T>(time: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < time, "not within {time:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn find() -> Option<PathBuf> {
    let mut installed: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .collect();
    installed.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    installed
        .into_iter()
        .rev()
        .chain(std::env::split_paths(&path))
        .find(|folder| folder.join("initdb").exists())
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout.starts_with(b"0"))
}

/// PostgreSQL does not run as root.
fn own(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command
        .args(["-u", "postgres", "--"])
        .arg(program)
        .current_dir("/");
    command
}

fn give_away(folder: &Path) {
    if is_root() {
        let given = Command::new("chown")
            .arg("postgres")
            .arg(folder)
            .status()
            .unwrap();
        assert!(given.success());
    }
}
