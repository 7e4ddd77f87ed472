use super::*;

const MOST: u64 = 1 << 40;

/// What is said of such a file.
fn look_at(bytes: &[u8], format: Option<ImageFormat>) -> Result<Vec<Found>, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    inspect(file.path(), format, MOST).map_err(|e| e.to_string())
}

fn refused(bytes: &[u8], why: &str) {
    let said = look_at(bytes, None).unwrap_err();
    assert!(said.contains(why), "{said:?} does not say {why:?}");
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn qcow2(version: u32) -> Vec<u8> {
    let mut file = Vec::new();
    put(&mut file, 0, b"QFI\xfb");
    put(&mut file, 4, &version.to_be_bytes());
    put(&mut file, 20, &16_u32.to_be_bytes());
    put(&mut file, 24, &(1_u64 << 30).to_be_bytes());
    put(&mut file, 100, &3_u32.to_be_bytes());
    file
}

fn vmdk(capacity: u64, description: &str) -> Vec<u8> {
    let mut file = Vec::new();
    put(&mut file, 0, b"KDMV");
    put(&mut file, 4, &1_u32.to_le_bytes());
    put(&mut file, 12, &capacity.to_le_bytes());
    put(&mut file, 28, &1_u64.to_le_bytes());
    put(&mut file, 36, &2_u64.to_le_bytes());
    put(&mut file, 512, description.as_bytes());
    file.resize(2048, 0);
    file
}

const ONE_FILE: &str =
    "# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 2048 SPARSE \"a.vmdk\"\n";

fn vhdx(parent: bool, locator: bool, regions: u32) -> Vec<u8> {
    let mut file = Vec::new();
    put(&mut file, 0, b"vhdxfile");
    let at = 192 << 10;
    put(&mut file, at, b"regi");
    put(&mut file, at + 8, &regions.to_le_bytes());
    // 8B7CA206-4790-4B9A-B8FE-575F050F886E, as it is stored.
    put(
        &mut file,
        at + 16,
        b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e",
    );
    put(&mut file, at + 32, &(1_u64 << 20).to_le_bytes());
    put(&mut file, at + 40, &(1_u32 << 20).to_le_bytes());
    let at = 1 << 20;
    put(&mut file, at, b"metadata");
    put(&mut file, at + 10, &(2 + u16::from(locator)).to_le_bytes());
    let mut item = |n: usize, guid: &[u8; 16], value: &[u8]| {
        put(&mut file, at + 32 + 32 * n, guid);
        let offset = (64 << 10) + 64 * n;
        put(&mut file, at + 32 + 32 * n + 16, &(offset as u32).to_le_bytes());
        put(&mut file, at + offset, value);
    };
    let parameters = (u64::from(parent) << 33 | 1 << 20).to_le_bytes();
    item(
        0,
        b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b",
        &parameters,
    );
    item(
        1,
        b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8",
        &(1_u64 << 30).to_le_bytes(),
    );
    if locator {
        item(
            2,
            b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c",
            b"",
        );
    }
    file
}

fn ova(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn good_ones_are_taken_for_what_they_are() {
    let one = |bytes: &[u8], format, virtual_bytes| {
        let found = look_at(bytes, None).unwrap();
        assert_eq!(
            (found.len(), found[0].format, found[0].virtual_bytes),
            (1, format, virtual_bytes)
        );
    };
    one(&qcow2(3), ImageFormat::Qcow2, 1 << 30);
    one(&qcow2(2), ImageFormat::Qcow2, 1 << 30);
    one(&vmdk(2048, ONE_FILE), ImageFormat::Vmdk, 1 << 20);
    one(&vhdx(false, false, 1), ImageFormat::Vhdx, 1 << 30);
    let mut raw = vec![0; 1000];
    raw[510..512].copy_from_slice(b"\x55\xaa");
    one(&raw, ImageFormat::Raw, 1024);
    assert_eq!(
        look_at(&[7; 512], Some(ImageFormat::Raw)).unwrap()[0].virtual_bytes,
        512
    );
}

#[test]
fn an_ova_has_its_disks_where_they_lie() {
    let (first, second) = (vmdk(2048, ONE_FILE), vmdk(4096, ONE_FILE));
    let files = [
        ("a.ovf", b"<Envelope/>".to_vec()),
        ("a.vmdk", first),
        ("b.vmdk", second),
    ];
    let bytes = ova(&files);
    let found = look_at(&bytes, None).unwrap();
    let sizes: Vec<_> = found.iter().map(|f| f.virtual_bytes).collect();
    assert_eq!(sizes, [1 << 20, 2 << 20]);
    for disk in &found {
        assert_eq!(&bytes[disk.offset as usize..][..4], b"KDMV");
    }
    refused(&ova(&files[..1]), "no VMDK");
    refused(&ova(&files[1..]), "no OVF");
    let flat = ONE_FILE.replace("SPARSE", "FLAT");
    refused(&ova(&[files[0].clone(), ("c.vmdk", vmdk(2048, &flat))]), "FLAT");
    refused(
        &ova(&[files[0].clone(), ("c.vmdk", b"# Disk DescriptorFile".to_vec())]),
        "no VMDK in one file",
    );
    refused(
        &ova(&[files[0].clone(), ("b.ovf", Vec::new()), files[1].clone()]),
        "more than one OVF",
    );
    let short = ova(&files);
    refused(&short[..short.len() - 3000], "too early");
    // A link to a file of the host is not followed.
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "a.vmdk", "/etc/shadow").unwrap();
    refused(&tar.into_inner().unwrap(), "no plain file");
}

#[test]
fn what_names_another_file_is_refused() {
    let mut backed = qcow2(3);
    put(&mut backed, 8, &104_u64.to_be_bytes());
    put(&mut backed, 104, b"/etc/shadow");
    refused(&backed, "backing file");
    let mut described = backed.clone();
    put(
        &mut described,
        104,
        b"json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}",
    );
    refused(&described, "backing file");
    let mut apart = qcow2(3);
    put(&mut apart, 72, &4_u64.to_be_bytes());
    refused(&apart, "another file");
    refused(
        b"json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}",
        "other files",
    );
    refused(
        b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0\n",
        "other files",
    );
    // Of no sectors, its description is taken for one that names other files.
    refused(&vmdk(0, ONE_FILE), "no bytes");
    let with = |from: &str, to: &str| vmdk(2048, &ONE_FILE.replace(from, to));
    refused(&with("ffffffff", "12345678"), "parent");
    refused(&with("RW", "parentFileNameHint=\"/etc/shadow\"\nRW"), "parent");
    refused(&with("SPARSE", "FLAT"), "FLAT");
    refused(&with("monolithicSparse", "monolithicFlat"), "monolithicFlat");
    refused(
        &with("RW", "RW 2048 SPARSE \"/etc/shadow\"\nRW"),
        "several extents",
    );
    refused(&vhdx(true, false, 1), "parent");
    refused(&vhdx(false, true, 1), "parent");
}

#[test]
fn what_is_no_image_or_not_a_whole_one_is_refused() {
    refused(b"", "empty");
    refused(&[0; 4096], "not known");
    refused(b"\x1f\x8b\x08\0", "gzip");
    refused(b"<html>", "not known");
    refused(&qcow2(3)[..60], "not a qcow2");
    refused(&qcow2(4), "version 4");
    let mut outside = qcow2(3);
    put(&mut outside, 36, &4_u32.to_be_bytes());
    put(&mut outside, 40, &(!511_u64).to_be_bytes());
    refused(&outside, "first table");
    let mut cut = qcow2(3);
    put(&mut cut, 36, &1_u32.to_be_bytes());
    put(&mut cut, 40, &512_u64.to_be_bytes());
    put(&mut cut, 512, &(1_u64 << 63 | 65_536).to_be_bytes());
    cut.resize(65_536 + 4096, 0);
    refused(&cut, "cut off");
    cut.resize(65_536 * 2, 0);
    assert!(look_at(&cut, None).is_ok());
    put(&mut cut, 20, &63_u32.to_be_bytes());
    refused(&cut, "clusters");
    let mut encrypted = qcow2(2);
    put(&mut encrypted, 32, &2_u32.to_be_bytes());
    refused(&encrypted, "encrypted");
    let mut newer = qcow2(3);
    put(&mut newer, 72, &(1_u64 << 40).to_be_bytes());
    refused(&newer, "not known");
    refused(&vmdk(2048, ONE_FILE)[..700], "too early");
    refused(&vmdk(u64::MAX, ONE_FILE), "larger than any");
    let mut far = vmdk(2048, ONE_FILE);
    put(&mut far, 28, &u64::MAX.to_le_bytes());
    refused(&far, "out of reach");
    let mut long = vmdk(2048, ONE_FILE);
    put(&mut long, 36, &(1_u64 << 40).to_le_bytes());
    refused(&long, "too long");
    let mut stream = vmdk(2048, ONE_FILE);
    put(&mut stream, 56, &u64::MAX.to_le_bytes());
    refused(&stream, "footer");
    refused(&vhdx(false, false, u32::MAX), "more entries");
    refused(&vhdx(false, false, 0), "no metadata");
    refused(b"vhdxfile", "no table of regions");
    let said = look_at(&qcow2(3), Some(ImageFormat::Vmdk)).unwrap_err();
    assert!(said.contains("looks like QCOW2"), "{said}");
}

#[test]
fn what_is_too_large_is_refused() {
    let mut large = qcow2(3);
    put(&mut large, 24, &(MOST + 512).to_be_bytes());
    refused(&large, "image_max_gib");
    put(&mut large, 24, &0_u64.to_be_bytes());
    refused(&large, "no bytes");
}

proptest::proptest! {
    /// Whatever a head says: an answer, and never a panic.
    #[test]
    fn damage_is_survived(
        which in 0..4_usize, damage in proptest::collection::vec((0..2048_usize, proptest::num::u8::ANY), 1..16)
    ) {
        let mut file = match which {
            0 => qcow2(3),
            1 => vmdk(2048, ONE_FILE),
            2 => vhdx(false, false, 1),
            _ => ova(&[("a.ovf", Vec::new()), ("a.vmdk", vmdk(2048, ONE_FILE))]),
        };
        for (at, byte) in damage {
            // In a VHDX what is read lies further behind.
            let at = if which == 2 { [at % 64, (192 << 10) + at % 64, (1 << 20) + at % 256][at % 3] } else { at };
            if let Some(b) = file.get_mut(at) {
                *b = byte;
            }
        }
        for disk in look_at(&file, None).into_iter().flatten() {
            proptest::prop_assert!(disk.virtual_bytes <= MOST);
            proptest::prop_assert!(disk.offset + disk.bytes <= file.len() as u64);
        }
    }
}
