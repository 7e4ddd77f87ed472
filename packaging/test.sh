#!/usr/bin/env bash
# What a user does with the package, on a host that is there for it alone: scripts/package-test.sh makes that, and runs this as root.
set -euo pipefail
shopt -s inherit_errexit
export DEBIAN_FRONTEND=noninteractive
deb=/package-test/offshoot.deb
unit=/usr/lib/systemd/system/offshoot.service
url=http://127.0.0.1:8080

ok() { echo "ok      $*"; }
fail() {
    echo "FAILED  $*"
    systemctl status --no-pager --lines 30 offshoot.service || true
    exit 1
}
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
# wait_for WHAT COMMAND…: asks until it holds
wait_for() {
    local what=$1 until=$((SECONDS + 30))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < until)) || fail "$what"
        sleep 0.05
    done
    ok "$what"
}
ready() { curl --silent --fail --max-time 5 $url/readyz; }
main() { systemctl show --value --property MainPID offshoot.service; }
offshoot_as_itself() { runuser -u offshoot -- offshoot "$@"; }
# The guest's process, by the record that the server keeps of it.
guest() { cut -d ' ' -f 1 /var/lib/offshoot/run/*/process; }
goes_on() {
    [[ $(guest) == "$qemu" && $(tr '\0' ' ' <"/proc/$qemu/cmdline") == *qemu-system* ]] || fail "the guest goes on $1"
    ok "the guest goes on $1"
}

# --- installed ----------------------------------------------------------------------------------------------------------

dpkg --install $deb
wait_for "it is ready" ready
server=$(main)
[[ $(stat -c %U "/proc/$server") == offshoot ]] || fail "it runs as the user offshoot"
[[ " $(id -nG offshoot) " == *" kvm "* ]] || fail "its user may use KVM"
[[ $(stat -c '%U %a' /var/lib/offshoot) == "offshoot 700" ]] || fail "the data directory is its own"
[[ $(systemctl is-enabled offshoot.service) == enabled ]] || fail "it starts with the host"
ok "it runs as the user offshoot, in a directory of its own, and starts with the host"
grep -q '^CapEff:\s*0000000000000000$' "/proc/$server/status" || fail "it has no capability"
grep -q '^NoNewPrivs:\s*1$' "/proc/$server/status" || fail "it can gain none"
ok "it has no capability and can gain none"

systemd-analyze verify $unit
systemd-analyze security --no-pager --threshold=35 offshoot.service >/package-test/security || {
    cat /package-test/security
    fail "its unit shuts it in"
}
ok "its unit shuts it in: $(tail -n 1 /package-test/security)"

# --- the console ----------------------------------------------------------------------------------------------------------

# The link of the first start is in the journal, as the documentation says.
link() { journalctl --unit offshoot.service --output cat | grep -o "$url/welcome/.*"; }
wait_for "the journal has the first link" link
curl --silent --fail --output /dev/null --cookie-jar /package-test/cookies --header "Origin: $url" --data '' "$(link)"
page=$(curl --silent --fail --cookie /package-test/cookies $url/)
[[ $page == *'</html>'* ]] || fail "the console's page is there: $page"
mapfile -t files < <(grep -o '"/pkg/[^"]*"' <<<"$page" | tr -d '"' | sort -u)
((${#files[@]} >= 3)) || fail "the page names its files: ${files[*]}"
for file in "${files[@]}"; do curl --silent --fail --output /dev/null "$url$file" || fail "$file is served"; done
ok "the console's page is there, and the ${#files[@]} files that it names"

# --- under the unit's limits ----------------------------------------------------------------------------------------------

# The same unit, with another program: whether QEMU starts in it, and the helper can shut itself in.
sed 's|^ExecStart=.*|ExecStart=/usr/bin/offshoot doctor --json|; s|^Type=.*|Type=oneshot|; /^Restart/d' $unit \
    >/run/systemd/system/doctor.service
echo 'StandardOutput=file:/package-test/doctor.json' >/package-test/output.conf
sed -i "/^\[Service\]/r /package-test/output.conf" /run/systemd/system/doctor.service
systemctl daemon-reload
systemctl start doctor.service || fail "the doctor finds nothing missing: $(cat /package-test/doctor.json)"
# level NAME LEVEL: what the doctor says of it
level() {
    grep -A 1 "\"name\": \"$1\"" /package-test/doctor.json | grep -q "\"level\": \"$2\"" ||
        fail "the doctor says $2 of $1: $(cat /package-test/doctor.json)"
}
for name in QEMU qemu-img sandbox machine "data directory" user console; do level "$name" ok; done
ok "under the unit's limits QEMU starts, sandboxed"
if [[ $(cat /proc/sys/kernel/apparmor_restrict_unprivileged_userns 2>/dev/null) == 1 ]]; then
    echo "        this kernel gives user namespaces to root alone: the helper has the host's network, as the doctor says"
    level "image helper" warn
else
    ! grep -q 'it has the host.s network' /package-test/doctor.json || fail "the helper has a network of its own"
    ok "the helper has a network of its own"
fi

[[ -s /usr/share/man/man1/offshoot.1.gz ]] || fail "it has a manual"

# --- its settings ---------------------------------------------------------------------------------------------------------

settings=/etc/offshoot/offshoot.toml
[[ $(offshoot config | grep ^data_dir) == 'data_dir = "/var/lib/offshoot"' ]] || fail "its commands know the directory"
sed 's/^# \([a-z_]* = \)/\1/' $settings >/package-test/all.toml
offshoot config --config /package-test/all.toml >/dev/null || fail "what is commented out are settings"
for variable in $(offshoot serve --help | grep -o 'OFFSHOOT_[A-Z_]*' | sort -u); do
    setting=$(tr '[:upper:]' '[:lower:]' <<<"${variable#OFFSHOOT_}")
    [[ $setting == config ]] || grep -q "^$setting = " /package-test/all.toml || fail "$settings tells of $setting"
done
ok "its file has every setting"

# --- machines outlive the server ------------------------------------------------------------------------------------------

OFFSHOOT_TOKEN=$(offshoot_as_itself token create test)
export OFFSHOOT_TOKEN
offshoot vm create blank --blank-gib 1 --memory-mib 64 --wait
offshoot vm start blank --wait || offshoot vm show blank
wait_for "a guest runs" guest
qemu=$(guest)
[[ $(stat -c %U "/proc/$qemu") == offshoot ]] || fail "the guest runs as the user offshoot"
grep -q '^CapEff:\s*0000000000000000$' "/proc/$qemu/status" || fail "the guest has no capability"
state() { offshoot vm show blank --json | grep -q '"state": *"RUNNING"'; }
wait_for "the server says so" state

kill -KILL "$(main)"
another() { local now; now=$(main) && [[ $now != 0 && $now != "$server" ]]; }
wait_for "a server that was killed is started again" another
wait_for "it is ready" ready
goes_on "without its server"
wait_for "the new server has found it" state

sed -i 's/^# log_format = .*/log_format = "json"/' $settings
server=$(main)
dpkg --install $deb
another || fail "an upgrade starts the server anew"
wait_for "it is ready after an upgrade" ready
goes_on "over an upgrade"
wait_for "the new server has found it" state
grep -q '^log_format' $settings || fail "an upgrade keeps what was set"
ok "an upgrade keeps what was set"

systemctl disable --quiet offshoot.service
dpkg --install $deb
[[ $(systemctl is-enabled offshoot.service || true) == disabled ]] || fail "what was disabled stays so"
ok "what was disabled stays so over an upgrade"
systemctl enable --quiet --now offshoot.service

# --- removed --------------------------------------------------------------------------------------------------------------

said=$(dpkg --remove offshoot 2>&1)
[[ $said == *"machines that go on running without the server"*": 1"* ]] || fail "the removal says what goes on: $said"
[[ ! -e /usr/bin/offshoot && ! -e $unit && -e $settings ]] || fail "a removal takes all but the settings"
[[ -z $(pgrep --exact offshoot || true) ]] || fail "a removal stops the server"
goes_on "over a removal"
said=$(dpkg --purge offshoot 2>&1)
[[ $said == *"are kept in /var/lib/offshoot"* ]] || fail "a purge says what it leaves: $said"
[[ ! -e /etc/offshoot && ! -e /etc/systemd/system/multi-user.target.wants/offshoot.service ]] || fail "a purge takes the settings"
[[ -f /var/lib/offshoot/offshoot.db && -n $(find /var/lib/offshoot/layers -type f) ]] || fail "a purge leaves the data"
goes_on "over a purge"
ok "a purge leaves the data, and says so"

# --- bridges --------------------------------------------------------------------------------------------------------------

# A capability that is handed on is not gained: `ip` makes taps though no program may gain privileges.
dpkg --install $deb
wait_for "installed again, it is ready with what was there" ready
wait_for "and with its guest" state
example=/usr/share/doc/offshoot/examples/bridges.conf
eval "$(sed -n 's/^#   \(install .*\|systemctl .*\)/\1/p' $example)"
wait_for "it is ready with bridges.conf" ready
goes_on "over a restart"
ip link add br0 type bridge
offshoot network add lan --kind BRIDGE --bridge br0
offshoot vm create bridged --blank-gib 1 --memory-mib 64 --network lan --wait
offshoot vm start bridged --wait || offshoot vm show bridged
[[ $(ip -brief link show master br0) == osh* ]] || fail "a NIC is on the bridge: $(ip link)"
ok "with bridges.conf a NIC joins a bridge of the host"
