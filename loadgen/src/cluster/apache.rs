//! An Apache ZooKeeper that is installed on this machine: where it is, and how its JVM is started.
//!
//! Looked for in `ZOOKEEPER_HOME` (the layout of Apache's tarball: jars in `lib/`, or in the directory itself before 3.5.5), then where
//! Debian and Ubuntu put the `zookeeper` package's jars. Nothing is started through Apache's shell scripts: they differ, and they
//! hide the JVM's process.

use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Heap and collector, unless `ZOOMETRY_JVM_FLAGS` says otherwise. A fixed heap keeps its growth out of the measurement.
const JVM_FLAGS: &str = "-Xms1g -Xmx1g -XX:+UseG1GC";
/// Debian's place for jars.
const DEBIAN_JARS: &str = "/usr/share/java";
/// What a server needs of them; logging to stderr by slf4j-simple.
const DEBIAN_NEEDS: [&str; 8] = [
    "zookeeper.jar",
    "zookeeper-jute.jar",
    "slf4j-api.jar",
    "slf4j-simple.jar",
    "netty-all.jar",
    "metrics-core.jar",
    "snappy-java.jar",
    "commons-io.jar",
];

/// Apache ZooKeeper as installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The JVM.
    pub java: PathBuf,
    /// Jars and configuration directories.
    pub classpath: Vec<PathBuf>,
    /// JVM flags.
    pub flags: Vec<String>,
    /// Where it was found.
    pub home: PathBuf,
}

impl Installation {
    /// Looks for one; `variable` reads the environment.
    pub fn find(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Installation> {
        let how = "set ZOOKEEPER_HOME to an unpacked apache-zookeeper-<version>-bin.tar.gz \
                   (https://zookeeper.apache.org/releases.html), or on Debian and Ubuntu: apt install zookeeper";
        // As Apache's own scripts look for it.
        let at_home = variable("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
        let java = at_home.filter(|java| java.is_file()).or_else(|| on_path(variable("PATH"), "java"));
        let Some(java) = java else {
            bail!("apache:N needs a JVM, and there is no java on the PATH nor in JAVA_HOME; then, {how}");
        };
        let flags = variable("ZOOMETRY_JVM_FLAGS").map(|flags| flags.to_string_lossy().into_owned());
        let flags = flags.as_deref().unwrap_or(JVM_FLAGS).split_whitespace().map(str::to_owned).collect();
        let (home, classpath) = match variable("ZOOKEEPER_HOME").filter(|home| !home.is_empty()) {
            Some(home) => {
                let home = PathBuf::from(home);
                let classpath = tarball(&home);
                if !has_zookeeper(&classpath) {
                    bail!("ZOOKEEPER_HOME={} has no zookeeper-<version>.jar in lib/; {how}", home.display());
                }
                (home, classpath)
            }
            None => {
                let home = PathBuf::from(DEBIAN_JARS);
                let classpath = debian(&home);
                if !has_zookeeper(&classpath) {
                    bail!("apache:N needs an Apache ZooKeeper, and none is installed: {how}");
                }
                (home, classpath)
            }
        };
        Ok(Installation { java, classpath, flags, home })
    }

    /// The JVM's arguments for one server.
    pub fn arguments(&self, config: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = self.flags.iter().map(OsString::from).collect();
        arguments.extend(
            ["-Dzookeeper.admin.enableServer=false", "-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp"]
                .map(OsString::from),
        );
        let classpath: Vec<_> = self.classpath.iter().map(|path| path.to_string_lossy()).collect();
        arguments.push(classpath.join(":").into());
        arguments.push("org.apache.zookeeper.server.quorum.QuorumPeerMain".into());
        arguments.push(config.into());
        arguments
    }

    /// What the manifest should say about it.
    pub fn settings(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("jvm_flags".to_owned(), self.flags.join(" ")),
            ("installation".to_owned(), self.home.display().to_string()),
        ])
    }
}

fn on_path(path: Option<OsString>, program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path?).map(|directory| directory.join(program)).find(|file| file.is_file())
}

fn jars(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut jars: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "jar"))
        .collect();
    jars.sort();
    jars
}

fn tarball(home: &Path) -> Vec<PathBuf> {
    // The configuration directory holds the logging set-up.
    [vec![home.join("conf")], jars(home), jars(&home.join("lib"))].concat()
}

fn debian(directory: &Path) -> Vec<PathBuf> {
    DEBIAN_NEEDS.iter().map(|name| directory.join(name)).filter(|path| path.is_file()).collect()
}

fn has_zookeeper(classpath: &[PathBuf]) -> bool {
    classpath.iter().any(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let version = name.strip_prefix("zookeeper").and_then(|rest| rest.strip_suffix(".jar"));
        version.is_some_and(|version| {
            version.is_empty() || version[1..].starts_with(|c: char| c.is_ascii_digit())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: Vec<(&'static str, PathBuf)>) -> impl Fn(&str) -> Option<OsString> {
        move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone().into())
    }

    #[test]
    fn a_tarball_is_found_by_its_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_owned();
        std::fs::create_dir_all(home.join("bin")).unwrap();
        std::fs::create_dir_all(home.join("lib")).unwrap();
        std::fs::write(home.join("bin/java"), "").unwrap();
        let variables = || environment(vec![("JAVA_HOME", home.clone()), ("ZOOKEEPER_HOME", home.clone())]);
        let error = Installation::find(&variables()).unwrap_err().to_string();
        assert!(
            error.contains("has no zookeeper-<version>.jar") && error.contains("releases.html"),
            "{error}"
        );
        std::fs::write(home.join("lib/zookeeper-jute-3.9.5.jar"), "").unwrap();
        assert!(Installation::find(&variables()).is_err(), "the jute jar alone is not a server");
        std::fs::write(home.join("lib/zookeeper-3.9.5.jar"), "").unwrap();
        let found = Installation::find(&variables()).unwrap();
        let arguments = found.arguments(Path::new("zoo.cfg"));
        assert!(arguments.iter().any(|a| a.to_string_lossy().contains("zookeeper-3.9.5.jar")));
        assert_eq!(found.settings()["jvm_flags"], JVM_FLAGS);
    }

    #[test]
    fn a_java_home_without_java_does_not_hide_the_one_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_owned();
        std::fs::create_dir_all(home.join("lib")).unwrap();
        std::fs::write(home.join("lib/zookeeper-3.9.5.jar"), "").unwrap();
        std::fs::write(home.join("java"), "").unwrap();
        let variables = environment(vec![
            ("JAVA_HOME", home.join("gone")),
            ("PATH", home.clone()),
            ("ZOOKEEPER_HOME", home.clone()),
        ]);
        assert_eq!(Installation::find(&variables).unwrap().java, home.join("java"));
    }

    #[test]
    fn without_java_the_error_says_what_to_install() {
        let error = Installation::find(&environment(vec![])).unwrap_err().to_string();
        assert!(error.contains("JVM") && error.contains("apt install zookeeper"), "{error}");
    }
}
