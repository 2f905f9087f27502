import { quote } from '../machine/quote.ts'

/** A file of a level's part of a report, and the POSIX shell that prints it there. */
export interface Item {
  file: string
  script: string
  /** Of `uname -m`; any unless said. */
  arch?: RegExp
}

/**
 * What a report has of each level: the list of the kernel's document ("Running nested guests with KVM", Information to
 * collect), and what else tells how KVM nests there. Where a tool is missing, `need` says so and the item ends; an item
 * that has something else in its stead says that with `instead`. All of it only reads.
 */
export const levelItems: readonly Item[] = [
  {
    file: 'kernel.txt',
    script: `uname -srvmo; cat /proc/version; echo "command line: $(cat /proc/cmdline)"; cat /etc/os-release 2>/dev/null; true`,
  },
  { file: 'qemu.txt', script: 'versions=$(own_qemus; running_qemus); [ "$versions" ] || need qemu; echo "$versions"' },
  {
    file: 'qemu-commands.txt',
    script: `found=
for d in $(engines); do found=1; echo "process \${d#/proc/}:"; tr '\\000' '\\n' < "$d/cmdline"; echo; done
[ "$found" ] || no 'no virtual machine runs here that this user may see'`,
  },
  {
    file: 'libvirt.txt',
    script: `command -v libvirtd virtqemud virsh > /dev/null || need libvirt
for p in libvirtd virtqemud virsh; do command -v $p > /dev/null && echo "$p: $($p --version 2>&1 | head -n 1)"; done; true`,
  },
  {
    file: 'libvirt-logs.txt',
    script: `[ -d /var/log/libvirt/qemu ] || need libvirt
for f in $(ls -t /var/log/libvirt/qemu/*.log 2>/dev/null | head -n 20); do echo "$f:"; tail -c 200000 "$f"; echo; done`,
  },
  { file: 'cpuinfo.txt', script: 'cat /proc/cpuinfo' },
  {
    file: 'lscpu.txt',
    script: `command -v lscpu > /dev/null && { lscpu; exit; }
instead 'no lscpu here: what it reads in /sys' && cd /sys/devices/system/cpu && grep -s '' online possible vulnerabilities/* \\
  cpu0/topology/* cpu0/cache/index*/level cpu0/cache/index*/type cpu0/cache/index*/size`,
  },
  {
    file: 'dmesg.txt',
    script: `log=$(dmesg 2>&1) && { printf '%s\\n' "$log"; exit; }
journal=$(journalctl -k -b -q --no-pager -o short-monotonic 2> /dev/null)
[ "$journal" ] || no "$log"
instead "$log; what journalctl has" && printf '%s\\n' "$journal"`,
  },
  {
    file: 'x86info.txt',
    arch: /^(x86_64|i.86)$/,
    script: `command -v x86info > /dev/null && { x86info -a; exit; }
command -v cpuid > /dev/null || need x86info
instead 'no x86info here: cpuid' && cpuid`,
  },
  {
    file: 'dmidecode.txt',
    arch: /^(x86_64|i.86|aarch64)$/,
    script: `[ -d /sys/class/dmi/id ] || command -v dmidecode > /dev/null || no 'this machine has no DMI tables'
command -v dmidecode > /dev/null && said=$(dmidecode 2>&1) && { printf '%s\\n' "$said"; exit; }
instead "no \${said:-dmidecode here}: what /sys has" && cd /sys/class/dmi/id && grep -s '' [a-z]*_*`,
  },
  { file: 'sysinfo.txt', arch: /^s390/, script: 'cat /proc/sysinfo' },
  {
    file: 'modules.txt',
    script: `grep -s '' /sys/module/kvm*/parameters/* /sys/module/vhost*/parameters/* /sys/module/irqbypass/parameters/*
grep -E '^(kvm|vhost|irqbypass|vfio|vbox|vmmon|hv_|mshv|acrn)' /proc/modules 2>/dev/null
[ -d /sys/module/kvm ] || no 'KVM is not in this kernel'`,
  },
  {
    file: 'kvm-counters.txt',
    script: `[ -d /sys/kernel/debug/kvm ] || no 'no counters: KVM is not there, debugfs not mounted, or this user may not read it'
cd /sys/kernel/debug/kvm && grep '' * */* 2>/dev/null; true`,
  },
  { file: 'memory.txt', script: 'cat /proc/meminfo; grep -s "" /sys/kernel/mm/transparent_hugepage/enabled; true' },
]

/** Tells, for those who redact, by what names the machine and its people go; it is no part of the report. */
export const identity: Item = {
  file: 'identity',
  script: `for f in /proc/sys/kernel/hostname /proc/sys/kernel/domainname /etc/hostname; do [ -r $f ] && echo "host $(cat $f)"; done
sed -n 's/#.*//; s/^[0-9a-fA-F:.]*[[:space:]]//p' /etc/hosts 2>/dev/null | tr ' \\t' '\\n\\n' | sed -n 's/^./host &/p'
sed -nE 's/^(search|domain)[[:space:]]+//p' /etc/resolv.conf 2>/dev/null | tr ' \\t' '\\n\\n' | sed -n 's/^./host &/p'
echo "user $(id -un)"; echo "user $SUDO_USER"
{ getent passwd || cat /etc/passwd; } 2>/dev/null | awk -F: '$3 >= 1000 && $3 < 60000 { print "user " $1; split($5, a, ","); print "user " a[1] }'
true`,
}

/** The end of a guest's log, as its engine keeps it. */
export function logItem(name: string, path: string): Item {
  return {
    file: `${name}.txt`,
    script: `[ -s ${quote(path)} ] || no 'nothing was written to it'; tail -c 2000000 ${quote(path)}`,
  }
}
