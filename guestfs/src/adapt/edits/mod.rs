//! What is changed in the guest's text files. All of it is pure, changes nothing the second time, and keeps every line that it
//! does not understand.

pub(super) mod names;

/// The kernel's words for a serial line: the screen's first, so that the last, where init speaks, is the serial one.
pub(super) const SERIAL: &str = "console=ttyS0,115200n8";
/// Stands before a line that is switched off.
const OFF: &str = "# offshoot: ";

/// Each line by `edit`, `None` leaves it; the ends of lines stay as they are.
fn lines(text: &str, mut edit: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    for whole in text.split_inclusive('\n') {
        let line = whole.trim_end_matches(['\n', '\r']);
        match edit(line) {
            Some(edited) => {
                out.push_str(&edited);
                out.push_str(&whole[line.len()..]);
            }
            None => out.push_str(whole),
        }
    }
    out
}

/// A line more at the end.
fn append(mut text: String, line: &str) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    text.push('\n');
    text
}

/// The device that a table names in its field number `field`, by what `resolve` says of it and of the type in field 2; `#` begins
/// a comment.
pub(super) fn table(
    text: &str,
    field: usize,
    resolve: impl Fn(&str, Option<&str>) -> Option<String>,
) -> String {
    lines(text, |line| {
        if line.trim_start().starts_with('#') {
            return None;
        }
        let word = line.split_whitespace().nth(field)?;
        // In crypttab a type is no file system's.
        let kind = (field == 0).then(|| line.split_whitespace().nth(2)).flatten();
        let instead = resolve(word, kind)?;
        let at = word.as_ptr() as usize - line.as_ptr() as usize;
        Some(format!("{}{instead}{}", &line[..at], &line[at + word.len()..]))
    })
}

/// The devices behind `root=` and `resume=` in a line of words for the kernel, by what `resolve` says of them.
pub(super) fn kernel_line(line: &str, resolve: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    loop {
        let found = ["root=", "resume=", "RESUME="]
            .iter()
            .filter_map(|key| rest.find(key).map(|at| (at, key.len())))
            .min();
        let Some((at, length)) = found else { break };
        let begins = rest[..at].chars().next_back().or_else(|| out.chars().next_back());
        let (before, after) = rest.split_at(at + length);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || c == '"' || c == '\'')
            .unwrap_or(after.len());
        let word = &after[..end];
        let whole = begins.is_none_or(|c| c.is_whitespace() || c == '"' || c == '\'' || c == '=');
        match resolve(word).filter(|_| whole) {
            Some(instead) => out.push_str(&instead),
            None => out.push_str(word),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

/// `/etc/default/grub`: devices by their UUIDs, and a serial console where asked.
pub(super) fn grub_default(text: &str, serial: bool, resolve: impl Fn(&str) -> Option<String>) -> String {
    let is = |line: &str| line.trim_start().starts_with("GRUB_CMDLINE_LINUX");
    let text = lines(text, |line| is(line).then(|| kernel_line(line, &resolve)));
    if !serial {
        return text;
    }
    let mut has = false;
    let text = lines(&text, |line| {
        let (name, value) = line.split_once('=')?;
        if has || name.trim() != "GRUB_CMDLINE_LINUX" {
            return None;
        }
        let (quote, inner) = quoted(value)?;
        has = true;
        with_console(inner).map(|inner| format!("{name}={quote}{inner}{quote}"))
    });
    if has
        || text
            .lines()
            .any(|line| is(line) && line.contains("console=ttyS0"))
    {
        return text;
    }
    append(text, &format!("GRUB_CMDLINE_LINUX=\"console=tty0 {SERIAL}\""))
}

/// The words of a shell's value, and what stands around them; `None` where it is more than that.
fn quoted(value: &str) -> Option<(char, &str)> {
    let value = value.trim_end();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote) {
            let inner = inner.strip_suffix(quote)?;
            return (!inner.contains(quote)).then_some((quote, inner));
        }
    }
    let plain = !value.contains(|c: char| c.is_whitespace() || "\"'$`\\#;&".contains(c));
    plain.then_some(('"', value))
}

fn with_console(words: &str) -> Option<String> {
    let mut all: Vec<_> = words.split_whitespace().collect();
    if all.iter().any(|w| w.starts_with("console=ttyS0")) {
        return None;
    }
    if !all.iter().any(|w| w.starts_with("console=")) {
        all.push("console=tty0");
    }
    all.push(SERIAL);
    Some(all.join(" "))
}

/// `/etc/initramfs-tools/modules`: with these.
pub(super) fn modules(text: &str, wanted: &[&str]) -> String {
    let mut out = text.to_owned();
    for module in wanted {
        let has = |line: &str| line.split_whitespace().next() == Some(module);
        if !out.lines().any(has) {
            out = append(out, module);
        }
    }
    out
}

/// What `MODULES` is by `/etc/initramfs-tools/initramfs.conf` or a file of `conf.d`.
pub(super) fn modules_mode(text: &str) -> Option<&str> {
    let mut said = text.lines().filter_map(|l| l.trim().strip_prefix("MODULES="));
    said.next_back().map(|mode| mode.trim_matches(['"', '\'', ' ']))
}

/// `/etc/hosts`: the old name is the new one at addresses of this machine, and the new one is there.
pub(super) fn hosts(text: &str, old: Option<&str>, new: &str) -> String {
    let short = |name: &str| name.split('.').next().unwrap_or(name).to_owned();
    let old = old.filter(|old| !old.is_empty() && *old != new && !old.starts_with("localhost"));
    let old_short = old.map(short);
    let text = lines(text, |line| {
        let (words, comment) = line.split_at(line.find('#').unwrap_or(line.len()));
        let address = words.split_whitespace().next()?;
        if !(address.starts_with("127.") || address == "::1") {
            return None;
        }
        let renamed = map_words(words, |word| {
            if Some(word) == old {
                Some(new.to_owned())
            } else if Some(word) == old_short.as_deref() && Some(word) != Some(new) {
                Some(short(new))
            } else {
                None
            }
        });
        Some(renamed + comment)
    });
    let known = text.lines().any(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        words.next().is_some_and(|address| address.starts_with("127.")) && words.any(|word| word == new)
    });
    if known {
        return text;
    }
    let names = if short(new) == new {
        new.to_owned()
    } else {
        format!("{new} {}", short(new))
    };
    append(text, &format!("127.0.1.1\t{names}"))
}

/// Every word but the first, with what is between them as it was.
fn map_words(line: &str, edit: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    let mut first = true;
    while !rest.is_empty() {
        let start = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match edit(word).filter(|_| !first) {
            Some(instead) => out.push_str(&instead),
            None => out.push_str(word),
        }
        first &= word.is_empty();
        rest = after;
    }
    out
}

/// Switches off the lines that `is` finds.
pub(super) fn off(text: &str, is: impl Fn(&str) -> bool) -> String {
    lines(text, |line| {
        let live = !line.trim_start().starts_with('#') && is(line);
        live.then(|| format!("{OFF}{line}"))
    })
}

/// udev's rules that name NICs by addresses that they had.
pub(super) fn persistent_net(text: &str) -> String {
    off(text, |line| {
        line.contains("NAME=") && (line.contains("ATTR{address}") || line.contains("SUBSYSTEM==\"net\""))
    })
}

/// A file of NetworkManager's or of `network-scripts` that asks for an address of a NIC that `keep` does not know.
pub(super) fn hardware_address(text: &str, keep: &[String]) -> String {
    off(text, |line| {
        let Some((key, value)) = line.split_once('=') else {
            return false;
        };
        let is = matches!(key.trim(), "HWADDR" | "mac-address");
        is && !same_address(value, keep)
    })
}

/// networkd's `[Match]` by an address that `keep` does not know is one by the driver.
pub(super) fn networkd(text: &str, keep: &[String]) -> String {
    let mut section = String::new();
    lines(text, |line| {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            section = trimmed.to_owned();
        }
        let (key, value) = trimmed.split_once('=')?;
        let is = section == "[Match]" && matches!(key.trim(), "MACAddress" | "PermanentMACAddress");
        (is && !same_address(value, keep)).then(|| "Driver=virtio_net".to_owned())
    })
}

/// netplan's `match` by an address that `keep` does not know is one by the driver.
pub(super) fn netplan(text: &str, keep: &[String]) -> String {
    let mut matching = None;
    lines(text, |line| {
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            return None;
        }
        let indent = line.len() - trimmed.len();
        if matching.is_some_and(|at| indent <= at) {
            matching = None;
        }
        if trimmed.trim_end() == "match:" {
            matching = Some(indent);
            return None;
        }
        let value = trimmed.strip_prefix("macaddress:")?;
        matching?;
        (!same_address(value, keep)).then(|| format!("{}driver: virtio_net", &line[..indent]))
    })
}

fn same_address(value: &str, keep: &[String]) -> bool {
    let value = value.split('#').next().unwrap_or_default();
    let value = value.trim().trim_matches(['"', '\'']);
    keep.iter().any(|k| k.eq_ignore_ascii_case(value))
}

/// Whether a machine can have this name.
pub(super) fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests;
