//! Machines of a libvirt that is reached by TLS and by ssh: their disks are read as those of one that is here.
#![allow(missing_docs, clippy::single_range_in_vec_init, clippy::unwrap_used)]

mod daemon;

use daemon::pki::Authority;
use daemon::ssh::{Sshd, own};
use daemon::{Daemon, MIB, disk, of, same, wanted, whole};
use libvirt::{Connection, Error, Wanted};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

fn chain(error: &dyn std::error::Error) -> String {
    let mut all = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        all.push_str(&format!(": {error}"));
        next = error.source();
    }
    all
}

fn by_tls(daemon: &Daemon, pki: &Path) -> libvirt::Result<Connection> {
    let uri = format!("qemu+tls://{}/session?pkipath={}", daemon.host(), pki.display());
    Connection::open(&uri.parse().unwrap())
}

/// Reads a machine twice: what it has, and what has changed since.
fn read_twice(daemon: &Daemon, connection: &Connection, uuid: &str) {
    let machines = connection.machines().unwrap();
    assert!(machines.iter().any(|machine| machine.uuid == uuid));
    let first = connection.back_up(&wanted(uuid, 1, None)).unwrap();
    daemon.write("plain", "write -P 9 0 1M");
    same(&whole(&first, 0), &disk(64, &[(0, 1)]));
    let since = wanted(uuid, 2, Some(&first));
    let source = first.disks[0].source.clone();
    first.end().unwrap();
    assert!(source.read(0, &mut [0; 512]).is_err(), "what was shown is gone");
    daemon.write("plain", "write -P 2 10M 1M");
    let second = connection.back_up(&since).unwrap();
    assert_eq!(
        second.disks[0].changed.as_deref().unwrap(),
        [0..MIB, 10 * MIB..11 * MIB]
    );
    same(&whole(&second, 0), &disk(64, &[(0, 9), (10, 2)]));
    let third = Wanted {
        since: Some(of(&second)),
        ..wanted(uuid, 3, None)
    };
    second.end().unwrap();
    // One that comes to nothing leaves nothing.
    connection.back_up(&third).unwrap().take_back();
    untouched(daemon, connection, uuid, &["offshoot.key.1", "offshoot.key.2"]);
}

/// Nothing is at work, and nothing has been left.
fn untouched(daemon: &Daemon, connection: &Connection, uuid: &str, moments: &[&str]) {
    assert_eq!(connection.moments(uuid, "key").unwrap(), moments);
    assert!(daemon.virsh(&["domjobinfo", "plain"]).contains("None"));
    let files = std::fs::read_dir(daemon.at("")).unwrap();
    let mut names = files.map(|file| file.unwrap().file_name());
    assert!(names.all(|name| !name.to_string_lossy().ends_with(".scratch")));
}

/// Why a backup cannot be made, of which nothing stays.
fn refused(daemon: &Daemon, connection: &Connection, uuid: &str) -> Error {
    let error = connection.back_up(&wanted(uuid, 1, None)).err().unwrap();
    untouched(daemon, connection, uuid, &[]);
    error
}

/// Those of the ports that QEMU listens on which are free at this address; they are held.
fn hold(host: Ipv4Addr) -> Vec<TcpListener> {
    let all = (10_809..=10_840).filter_map(|port| TcpListener::bind((host, port)).ok());
    all.collect()
}

#[test]
fn disks_are_read_by_tls() {
    let authority = Authority::new("authority");
    let daemon = Daemon::start_tls(&authority);
    authority.client(&daemon.at("client"));
    let connection = by_tls(&daemon, &daemon.at("client")).unwrap();
    let uuid = daemon.plain("plain");
    daemon.virsh(&["start", "plain"]);
    read_twice(&daemon, &connection, &uuid);

    // Another at the same time has another port.
    let other = daemon.plain("other");
    let ours = connection.back_up(&wanted(&uuid, 4, None)).unwrap();
    let others = connection.back_up(&wanted(&other, 1, None)).unwrap();
    assert_eq!(hold(daemon.host()).len(), 30);
    same(&whole(&others, 0), &disk(64, &[(0, 1)]));
    same(&whole(&ours, 0), &disk(64, &[(0, 9), (10, 2)]));
    others.end().unwrap();
    ours.end().unwrap();
    assert!(!connection.machine(&other).unwrap().active);
    assert_eq!(hold(daemon.host()).len(), 32);
}

#[test]
fn a_port_that_is_taken_is_passed_over() {
    let authority = Authority::new("authority");
    let daemon = Daemon::start_tls(&authority);
    authority.client(&daemon.at("client"));
    let connection = by_tls(&daemon, &daemon.at("client")).unwrap();
    let uuid = daemon.plain("plain");
    daemon.virsh(&["start", "plain"]);
    let mut held = hold(daemon.host());
    assert_eq!(held.len(), 32);
    let error = refused(&daemon, &connection, &uuid);
    assert!(matches!(error, Error::Taken(_)) && error.passes(), "{error}");
    held.remove(17);
    let backup = connection.back_up(&wanted(&uuid, 1, None)).unwrap();
    assert_eq!(hold(daemon.host()).len(), 0);
    same(&whole(&backup, 0), &disk(64, &[(0, 1)]));
    let since = wanted(&uuid, 2, Some(&backup));
    backup.end().unwrap();
    let backup = connection.back_up(&since).unwrap();
    assert_eq!(
        (&backup.lost, &backup.disks[0].changed),
        (&None, &Some(Vec::new()))
    );
    backup.end().unwrap();
}

#[test]
fn who_is_not_known_is_refused() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let mut daemon = Daemon::start_tls(&authority);
    let host = daemon.host().to_string();
    authority.client(&daemon.at("client"));
    stranger.client(&daemon.at("stranger"));
    std::fs::write(daemon.at("stranger/cacert.pem"), &authority.pem).unwrap();
    let away = by_tls(&daemon, &daemon.at("stranger")).err().unwrap();
    assert!(away.to_string().contains("certificates"), "{away}");

    // What QEMU believes and shows is looked at by itself.
    let connection = by_tls(&daemon, &daemon.at("client")).unwrap();
    let uuid = daemon.plain("plain");
    daemon.virsh(&["start", "plain"]);
    let refused = |daemon: &Daemon, connection: &Connection| chain(&refused(daemon, connection, &uuid));
    daemon.certify(&stranger, &host);
    let why = refused(&daemon, &connection);
    assert!(why.contains("UnknownIssuer"), "{why}");
    let both = format!("{}{}", authority.pem, stranger.pem);
    std::fs::write(daemon.at("client/cacert.pem"), both).unwrap();
    let why = refused(&daemon, &connection);
    assert!(why.contains("does not take the certificate"), "{why}");
    daemon.certify(&authority, "elsewhere.example");
    let why = refused(&daemon, &connection);
    assert!(why.contains("not valid for name"), "{why}");
    std::fs::remove_file(daemon.at("pki/server-cert.pem")).unwrap();
    let why = refused(&daemon, &connection);
    assert!(
        why.contains("/etc/pki/qemu") && why.contains("server-cert.pem"),
        "{why}"
    );

    daemon.certify(&authority, &host);
    std::fs::remove_file(daemon.at("client/clientkey.pem")).unwrap();
    let why = refused(&daemon, &connection);
    assert!(why.contains("client/clientkey.pem"), "{why}");
    authority.client(&daemon.at("client"));
    connection.back_up(&wanted(&uuid, 1, None)).unwrap().take_back();

    // One that shows it to everybody.
    let lines = format!(
        "default_tls_x509_cert_dir = \"{}\"\nbackup_tls_x509_verify = 0\n",
        daemon.at("pki").display()
    );
    drop(connection);
    daemon.configure(&lines);
    daemon.restart();
    let connection = by_tls(&daemon, &daemon.at("client")).unwrap();
    let why = refused(&daemon, &connection);
    assert!(why.contains("backup_tls_x509_verify"), "{why}");
}

#[test]
fn disks_are_read_through_ssh() {
    let Some(dir) = own("disks_are_read_through_ssh") else {
        return;
    };
    let daemon = Daemon::start();
    let mut sshd = Sshd::start(&dir);
    let open = |sshd: &Sshd, key| Connection::open(&sshd.uri(&daemon.socket(), key).parse().unwrap());
    let away = open(&sshd, "stranger").err().unwrap();
    assert!(
        away.passes() && away.to_string().contains("sign in there by ssh"),
        "{away}"
    );
    let connection = open(&sshd, "key").unwrap();
    let uuid = daemon.plain("plain");
    daemon.virsh(&["start", "plain"]);
    read_twice(&daemon, &connection, &uuid);

    let backup = connection.back_up(&wanted(&uuid, 4, None)).unwrap();
    let source = backup.disks[0].source.clone();
    source.read(0, &mut [0; 512]).unwrap();
    let cut = Instant::now();
    sshd.kill();
    for says in ["closed the connection", "ssh to"] {
        let why = chain(&source.read(0, &mut [0; 512]).unwrap_err());
        assert!(why.contains(says), "{why}");
    }
    let why = backup.end().unwrap_err();
    assert!(why.passes(), "{}", chain(&why));
    assert!(cut.elapsed() < Duration::from_secs(30), "{:?}", cut.elapsed());
    let away = connection.machines().unwrap_err();
    assert!(away.passes(), "{}", chain(&away));
    sshd.again();
    let connection = open(&sshd, "key").unwrap();
    let backup = connection.back_up(&wanted(&uuid, 4, None)).unwrap();
    same(&whole(&backup, 0), &disk(64, &[(0, 9), (10, 2)]));
    backup.end().unwrap();
}
