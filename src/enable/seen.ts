import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'

/** A kernel module that is there, loaded or built in. */
export interface Module {
  builtIn: boolean
  /** How many users it has; undefined for a built-in one. */
  users: number | undefined
  /** As the kernel shows them: `nested` to `Y`. */
  parameters: ReadonlyMap<string, string>
}

/** What the plans are made from: one machine, and the files in a root directory of it. */
export interface Seen {
  /** As uname(1) has it: `x86_64`, `aarch64`, `s390x`. */
  arch: string
  kernelRelease: string
  uid: number
  userName: string
  /** The kernel's command line. */
  commandLine: string
  /** The flags of the processor, of s390x its features, and those of VMX as Linux lists them since 5.8. */
  cpuFlags: ReadonlySet<string>
  vmxFlags: ReadonlySet<string>
  /** What the hypervisor below calls itself in CPUID, where it could be read: `KVMKVMKVM`, `Microsoft Hv`. */
  hypervisor: string
  /** From the firmware, by the names in /sys/class/dmi/id. */
  dmi: ReadonlyMap<string, string>
  modules: ReadonlyMap<string, Module>
  /** Who has /dev/kvm or a guest open: as root all of them, else one's own. */
  holders: readonly { pid: number; name: string }[]
  device: { mode: string; owner: string; group: string } | undefined
  /** Groups of the user asked for; undefined where there is no such user. */
  groups: readonly string[] | undefined
  /** What was looked for and is there, by name. */
  programs: ReadonlySet<string>
  /** The kernel's log, as far as it is about virtualization and may be read. */
  log: string
  /** Directories and texts of files that matter, by their paths in the root directory: `/etc/default/grub`. */
  directories: ReadonlySet<string>
  files: ReadonlyMap<string, string>
  /** Where nestvm keeps its state for this user. */
  stateDir: string
}

/** Looks at a machine. It takes one process there, and nothing is changed. */
export async function look(
  machine: Machine,
  { root, user, signal }: { root: string; user?: string; signal?: AbortSignal },
): Promise<Seen> {
  const argv = ['sh', '-c', lookScript, 'sh', root === '/' ? '' : root, user ?? '']
  const { stdout } = await run(machine, argv, { timeoutMs: 60_000, signal })
  return parseSeen(stdout)
}

/** `6.1.0-13-amd64` is at least 6.1. */
export function atLeast(release: string, major: number, minor: number): boolean {
  const [, one = '0', two = '0'] = /^(\d+)\.(\d+)/.exec(release) ?? []
  return Number(one) > major || (Number(one) === major && Number(two) >= minor)
}

/** Each section is a line with its name after a mark, then its text. */
const mark = '\u001e'

/** What `lookScript` printed. */
function parseSeen(output: string): Seen {
  const sections = output.split(`\n${mark}`).map((section) => {
    const end = section.indexOf('\n')
    return [section.slice(0, end), section.slice(end + 1)] as const
  })
  const text = (name: string) => sections.find(([key]) => key === name)?.[1] ?? ''
  const named = (kind: string) =>
    new Map(
      sections.flatMap(([key, value]) => (key.startsWith(`${kind} `) ? [[key.slice(kind.length + 1), value]] : [])),
    )
  const words = (name: string) => text(name).split(/\s+/).filter(Boolean)
  const [mode, owner, group] = words('device')
  return {
    arch: text('arch').trim(),
    kernelRelease: text('kernel').trim(),
    uid: Number(text('uid')),
    userName: text('user').trim(),
    commandLine: text('cmdline').trim(),
    cpuFlags: new Set(words('flags')),
    vmxFlags: new Set(words('vmx')),
    hypervisor: text('hypervisor').replaceAll('\0', '').trim(),
    dmi: new Map([...named('dmi')].map(([name, value]) => [name, value.trim()])),
    modules: new Map([...named('module')].map(([name, value]) => [name, parseModule(value)])),
    holders: text('holders')
      .split('\n')
      .flatMap((line) => {
        const [, pid, name] = /^(\d+) (.*)$/.exec(line) ?? []
        return pid === undefined ? [] : [{ pid: Number(pid), name: name ?? '' }]
      }),
    device: mode && owner && group ? { mode, owner, group } : undefined,
    groups: text('groups').trim() === '' ? undefined : words('groups'),
    programs: new Set(words('programs')),
    log: text('log'),
    directories: new Set(words('directories')),
    files: named('file'),
    stateDir: text('state').trim(),
  }
}

/** A first line `builtin` or `loaded N`, then parameters. */
function parseModule(text: string): Module {
  const [state = '', ...lines] = text.trim().split('\n')
  return {
    builtIn: state === 'builtin',
    users: state === 'builtin' ? undefined : Number(state.split(' ')[1] ?? 0),
    parameters: new Map(
      lines.map((line) => {
        const at = line.indexOf('=')
        return [line.slice(0, at), line.slice(at + 1)] as const
      }),
    ),
  }
}

/**
 * For any POSIX shell, busybox's too. Only what is loaded as a module has `initstate`. CPUID's leaf 0x40000000 is at
 * that position of /dev/cpu/0/cpuid, in units of 16 bytes, which root may read. An embedded QEMU is called by its loader.
 */
const lookScript = `root=$1 PATH=$PATH:/usr/sbin:/sbin
user=\${2:-\${SUDO_USER:-$(id -un)}}
section() { printf '\\n\\036%s\\n' "$1"; }
section arch; uname -m
section kernel; uname -r
section uid; id -u
section user; echo "$user"
section groups; id -nG "$user" 2>/dev/null
section cmdline; cat /proc/cmdline
section flags; grep -m 1 -E '^(flags|features|Features)' /proc/cpuinfo | sed 's/^[^:]*://'
section vmx; grep -m 1 '^vmx flags' /proc/cpuinfo | sed 's/^[^:]*://'
section hypervisor
if [ -r /dev/cpu/0/cpuid ]; then dd if=/dev/cpu/0/cpuid bs=16 count=1 skip=67108864 2>/dev/null | tail -c 12
elif [ -r /sys/hypervisor/type ]; then cat /sys/hypervisor/type; fi
for name in sys_vendor product_name chassis_asset_tag bios_vendor; do
  [ -r /sys/class/dmi/id/$name ] && { section "dmi $name"; cat /sys/class/dmi/id/$name; }
done
for dir in /sys/module/kvm /sys/module/kvm_*; do
  [ -d "$dir" ] || continue
  section "module \${dir##*/}"
  if [ -e "$dir/initstate" ]; then echo "loaded $(cat "$dir/refcnt" 2>/dev/null)"; else echo builtin; fi
  for file in "$dir"/parameters/*; do [ -r "$file" ] && echo "\${file##*/}=$(cat "$file")"; done
done
section holders
ls -l /proc/[0-9]*/fd 2>/dev/null | awk '/^\\/proc\\//{split($0,part,"/")} /-> (anon_inode:)?\\[?kvm-vm|-> \\/dev\\/kvm$/{print part[3]}' |
  sort -u | while read -r pid; do
    name=$(tr '\\0' '\\n' 2>/dev/null < /proc/$pid/cmdline | grep -m 1 -o 'qemu-system-[a-z0-9_]*')
    echo "$pid \${name:-$(cat /proc/$pid/comm 2>/dev/null)}"
  done
section device
[ -c /dev/kvm ] && stat -c '%a %U %G' /dev/kvm
section programs
for name in modprobe update-grub grub-mkconfig grub2-mkconfig grubby usermod gpasswd addgroup delgroup groupadd udevadm depmod update-initramfs; do
  command -v $name > /dev/null && echo $name
done
section log; dmesg 2>/dev/null | grep -iE 'kvm|EL2|HYP mode|VMX|SVM|VHE' | head -n 50
section state; echo "\${XDG_STATE_HOME:-$HOME/.local/state}/nestvm"
section directories
for dir in /etc/default/grub.d /etc/modprobe.d /etc/udev/rules.d /boot/grub /boot/grub2 /boot/loader/entries; do
  [ -d "$root$dir" ] && echo $dir
done
for file in "$root"/etc/default/grub "$root"/etc/default/grub.d/*.cfg "$root"/etc/kernel/cmdline "$root"/etc/group \\
  "$root"/etc/modprobe.d/*.conf "$root"/run/modprobe.d/*.conf "$root"/usr/lib/modprobe.d/*.conf \\
  "$root"/etc/udev/rules.d/*kvm*.rules; do
  [ -f "$file" ] && { section "file \${file#"$root"}"; cat "$file"; }
done
section end
`
