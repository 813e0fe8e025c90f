//! The part of testcontainers' interface that zookeeper-client's tests use, with `zoometry-server` in the
//! place of the container. The executable is named by `ZOOMETRY_SERVER`.
//!
//! A "container" is a directory with a zoo.cfg, a child process and its log. Mounted files keep their
//! contents; paths inside the container (`/data`, `/conf/zoo.cfg`) are translated.

pub mod clients {
    use super::core::{Container, RunnableImage};
    use super::images::generic::GenericImage;

    #[derive(Default)]
    pub struct Cli;

    impl Cli {
        pub fn run(&self, image: impl Into<RunnableImage<GenericImage>>) -> Container<'_, GenericImage> {
            Container::launch(image.into().image)
        }
    }
}

pub mod images {
    pub mod generic {
        use crate::core::{Healthcheck, RunnableImage, WaitFor};

        /// What to run: Java flags and mounted files.
        #[derive(Debug, Default, Clone)]
        pub struct GenericImage {
            pub(crate) flags: String,
            pub(crate) volumes: Vec<(String, String)>,
            pub(crate) host_network: bool,
        }

        impl GenericImage {
            pub fn new(_name: &str, _tag: &str) -> Self {
                Self::default()
            }

            pub fn with_env_var(mut self, name: &str, value: impl Into<String>) -> Self {
                if name == "SERVER_JVMFLAGS" {
                    self.flags = value.into();
                }
                self
            }

            pub fn with_healthcheck(self, _: Healthcheck) -> Self {
                self
            }

            pub fn with_wait_for(self, _: WaitFor) -> Self {
                self
            }
        }

        impl From<GenericImage> for RunnableImage<GenericImage> {
            fn from(image: GenericImage) -> Self {
                RunnableImage { image }
            }
        }
    }
}

pub mod core {
    use std::fs;
    use std::io::{Read, Write};
    use std::marker::PhantomData;
    use std::net::{TcpListener, TcpStream};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use super::images::generic::GenericImage;

    /// How long a server may take until it answers.
    const START_LIMIT: Duration = Duration::from_secs(60);

    #[derive(Default)]
    pub struct Healthcheck;

    impl Healthcheck {
        pub fn with_cmd<I>(self, _: I) -> Self {
            self
        }
        pub fn with_interval(self, _: Duration) -> Self {
            self
        }
        pub fn with_retries(self, _: u32) -> Self {
            self
        }
    }

    pub enum WaitFor {
        Healthcheck,
    }

    pub struct RunnableImage<I> {
        pub(crate) image: I,
    }

    impl RunnableImage<GenericImage> {
        pub fn with_volume<A: Into<String>, B: Into<String>>(mut self, (host, inside): (A, B)) -> Self {
            self.image.volumes.push((host.into(), inside.into()));
            self
        }

        pub fn with_network(mut self, name: impl Into<String>) -> Self {
            self.image.host_network = name.into() == "host";
            self
        }
    }

    /// One server process. Dropped: killed, its directory removed.
    pub struct Container<'d, I> {
        dir: PathBuf,
        port: u16,
        child: Mutex<Option<Child>>,
        marker: PhantomData<&'d I>,
    }

    /// The log of a server from now on.
    pub struct LogStream {
        log: PathBuf,
    }

    impl LogStream {
        /// Waits until the log holds `message`, a minute at most.
        pub fn wait_for_message(&self, message: &str) -> Result<(), String> {
            let until = Instant::now() + START_LIMIT;
            while Instant::now() < until {
                if fs::read_to_string(&self.log).unwrap_or_default().contains(message) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(format!("{}: no {message:?} within {START_LIMIT:?}", self.log.display()))
        }
    }

    impl<I> Container<'_, I> {
        pub(crate) fn launch(image: GenericImage) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("zoometry-foreign-{}-{count}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            let port = write_config(&image, &dir);
            let container = Self { dir, port, child: Mutex::new(None), marker: PhantomData };
            container.spawn();
            container.wait_until_it_serves(image.host_network);
            container
        }

        fn log(&self) -> PathBuf {
            self.dir.join("log")
        }

        fn spawn(&self) {
            let server = std::env::var("ZOOMETRY_SERVER").expect("ZOOMETRY_SERVER names the server's executable");
            let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
            let child = Command::new(server)
                .arg(self.dir.join("zoo.cfg"))
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            *self.child.lock().unwrap() = Some(child);
        }

        /// A standalone server answers `srvr` with its mode. A member of an ensemble is waited for in the same
        /// way; members start at the same time, each from a thread of its own.
        fn wait_until_it_serves(&self, host_network: bool) {
            let until = Instant::now() + START_LIMIT;
            while Instant::now() < until {
                if four_letter_word(self.port, "srvr").contains("Mode: ") {
                    return;
                }
                let ended = self.child.lock().unwrap().as_mut().unwrap().try_wait().unwrap();
                if let Some(status) = ended {
                    let log = fs::read_to_string(self.log()).unwrap_or_default();
                    panic!("the server ended with {status} (host network: {host_network}):\n{log}");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            panic!("no server on port {} within {START_LIMIT:?}", self.port);
        }

        pub fn get_host_port(&self, _inside: u16) -> u16 {
            self.port
        }

        pub fn stdout(&self) -> LogStream {
            LogStream { log: self.log() }
        }

        pub fn stop(&self) {
            if let Some(mut child) = self.child.lock().unwrap().take() {
                let _ = Command::new("kill").arg(child.id().to_string()).status();
                let _ = child.wait();
            }
        }

        pub fn start(&self) {
            if self.child.lock().unwrap().is_none() {
                self.spawn();
            }
        }
    }

    impl<I> Drop for Container<'_, I> {
        fn drop(&mut self) {
            if let Some(mut child) = self.child.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            if std::env::var_os("ZOOMETRY_FOREIGN_KEEP").is_none() {
                let _ = fs::remove_dir_all(&self.dir);
            }
        }
    }

    fn four_letter_word(port: u16, word: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let _ = stream.write_all(word.as_bytes());
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    /// Writes `DIR/zoo.cfg` from the mounted one (or the image's default) and gives the client port.
    fn write_config(image: &GenericImage, dir: &Path) -> u16 {
        let mounted = |inside: &str| image.volumes.iter().find(|(_, to)| to == inside).map(|(from, _)| from.clone());
        let data = mounted("/data").map(PathBuf::from).unwrap_or_else(|| {
            let data = dir.join("data");
            fs::create_dir_all(&data).unwrap();
            data
        });
        let mut lines = Vec::new();
        let mut port = 0;
        let text = mounted("/conf/zoo.cfg").map(|path| fs::read_to_string(path).unwrap());
        for line in text.as_deref().unwrap_or("tickTime=2000\ninitLimit=5\nsyncLimit=2\n").lines() {
            match line.split_once('=') {
                Some(("clientPort" | "dataDir" | "secureClientPort", _)) => {}
                _ => lines.push(line.to_owned()),
            }
        }
        if image.host_network {
            let id = fs::read_to_string(data.join("myid")).unwrap();
            let prefix = format!("server.{}=", id.trim());
            let server = lines.iter().find(|line| line.starts_with(&prefix)).unwrap();
            port = server.rsplit(':').next().unwrap().parse().unwrap();
        } else {
            while port == 0 {
                port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            }
            lines.push(format!("clientPort={port}"));
        }
        lines.push(format!("dataDir={}", data.display()));
        lines.push("4lw.commands.whitelist=*".to_owned());
        lines.push("admin.enableServer=false".to_owned());
        // Java properties: `-Dzookeeper.name=value` is `name=value` in zoo.cfg, as Apache reads unknown keys.
        for flag in image.flags.split_whitespace() {
            if let Some(property) = flag.strip_prefix("-D") {
                lines.push(property.strip_prefix("zookeeper.").unwrap_or(property).to_owned());
            }
        }
        fs::write(dir.join("zoo.cfg"), lines.join("\n") + "\n").unwrap();
        port
    }
}
