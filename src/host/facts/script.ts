import { capabilities, cpuReader, leaves } from './cpu-reader.ts'

/**
 * Gathers, in one go, all that the checks look at; its output is for `parseFacts`. POSIX shell, with what busybox has:
 * each fork costs many VM exits in a deep level, so files are read by the shell itself where they may be many. It
 * changes nothing, loads no module, and needs no root; what it may not read it leaves out.
 *
 * Its argument is a word that nobody could have written into a file: it begins the line that names each section.
 */
export const factsScript = `export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin:/usr/libexec"
mark=$1
section() { printf '\\n%s %s\\n' "$mark" "$1"; }
values() { for f in "$@"; do [ -r "$f" ] && read -r v < "$f" 2>/dev/null && echo "$f $v"; done; }
text() { [ -r "$1" ] && tr '\\000' '\\n' < "$1" 2>/dev/null; }

section machine; uname -m
section release; uname -r
section version; uname -v
section cmdline; text /proc/cmdline
section user; id -un; id -u; id -Gn
section kvm-group; getent group kvm 2>/dev/null || grep '^kvm:' /etc/group

section cpuinfo; sed -n '1,/^$/p' /proc/cpuinfo
section platform; tail -n 10 /proc/cpuinfo | grep -E '^(platform|machine|MMU|model)'
section cpus; text /sys/devices/system/cpu/online
section clock; text /sys/devices/system/clocksource/clocksource0/current_clocksource

release=$(uname -r)
section config
config='^(# )?CONFIG_(VIRTUALIZATION|KVM|ACRN|VHOST|VIRTIO|HYPERV|TUN|ARM64_VHE)[A-Z0-9_]*[= ]'
if [ -r /proc/config.gz ]; then zcat /proc/config.gz 2>/dev/null | grep -E "$config"
else for f in "/boot/config-$release" "/lib/modules/$release/config" "/usr/lib/modules/$release/config"; do
  [ -r "$f" ] && grep -E "$config" "$f" && break
done; fi
section loadable
grep -oE '^[^:]*/(kvm[^/:]*|acrn[^/:]*)[.]ko[^:]*' "/lib/modules/$release/modules.dep" 2>/dev/null
section built-in; grep -E '/kvm[^/]*[.]ko' "/lib/modules/$release/modules.builtin" 2>/dev/null
section modules
for d in /sys/module/kvm* /sys/module/vboxdrv /sys/module/vmmon /sys/module/hv_vmbus /sys/module/mshv*; do
  [ -d "$d" ] || continue
  state=built-in; [ -e "$d/initstate" ] && read -r state < "$d/initstate"
  users=-; [ -r "$d/refcnt" ] && read -r users < "$d/refcnt"
  by=; for holder in "$d"/holders/*; do [ -e "$holder" ] && by="$by \${holder##*/}"; done
  echo "\${d##*/} $state $users$by"
done
section parameters; values /sys/module/kvm*/parameters/*

section device
if [ -c /dev/kvm ]; then
  ls -ld /dev/kvm
  [ -r /dev/kvm ] && echo readable
  [ -w /dev/kvm ] && echo writable
fi
section misc; grep -w kvm /proc/misc
section vms; ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c 'anon_inode:\\[*kvm-vm'
section counters; values /sys/kernel/debug/kvm/exits /sys/kernel/debug/kvm/nested_run

section log
log=$(dmesg 2>/dev/null); [ "$log" ] || log=$(journalctl -k -b -q --no-pager -o short-monotonic 2>/dev/null)
[ "$log" ] && echo readable && printf '%s\\n' "$log" | grep -iE \\
  'kvm|hypervisor|x86/cpu: (vmx|svm)|svm (disabled|not)|hyp mode|started at el|gicv[0-9]|acrn|hyper-v|virtualiz|dmi: |vmware|xen' |
  head -n 200 | cut -c 1-400

section dmi; cd /sys/class/dmi/id 2>/dev/null && values sys_vendor product_name product_version board_vendor board_name \\
  bios_vendor bios_version chassis_asset_tag
section tree
for f in model compatible hypervisor/compatible; do
  [ -r "/proc/device-tree/$f" ] && echo "$f $(tr '\\000' ' ' < "/proc/device-tree/$f")"
done
section xen; values /sys/hypervisor/type /proc/xen/capabilities /sys/hypervisor/guest_type
section virt; systemd-detect-virt --vm 2>/dev/null
section container
{ systemd-detect-virt --container 2>/dev/null || { [ -e /.dockerenv ] && echo docker; } ||
  { [ -e /run/.containerenv ] && echo podman; }; } | grep -vx none
section devices; for f in /dev/acrn_hsm /dev/mshv /dev/xen/gntdev /dev/vhost-net /dev/net/tun; do [ -e $f ] && echo $f; done
section sysinfo
[ -r /proc/sysinfo ] && grep -E '^(Manufacturer|Type|LPAR (Number|Characteristics)|VM[0-9]* Control Program)' /proc/sysinfo
section gic; grep -oE 'GICv[0-9]|GIC-[0-9]+' /proc/interrupts 2>/dev/null | head -n 1

section memory; grep -E '^(Mem(Total|Available)|Swap(Total|Free)|Huge[Pp]|HugePages)' /proc/meminfo
section thp; text /sys/kernel/mm/transparent_hugepage/enabled
section qemu
for name in qemu-system-x86_64 qemu-system-aarch64 qemu-system-s390x qemu-system-ppc64 qemu-system-riscv64 qemu-kvm; do
  path=$(command -v $name) && echo "$path $("$path" --version 2>/dev/null | head -n 1)"
done

case $(uname -m) in x86_64)
  section reader
  for d in "$XDG_RUNTIME_DIR" /tmp /dev/shm /var/tmp; do
    [ -n "$d" ] && [ -w "$d" ] && f=$(umask 077; mktemp "$d/nestvm-XXXXXX" 2>/dev/null) || continue
    printf '${octal(cpuReader())}' > "$f" && chmod 700 "$f" && words=$("$f" 2>/dev/null | od -An -v -tx4)
    rm -f "$f"
    [ "$words" ] && break
  done
  if [ "$words" ]; then echo "$words"
  elif [ -r /dev/cpu/0/cpuid ]; then
    section cpuid
    for leaf in ${leaves.map(([leaf]) => leaf).join(' ')}; do
      dd if=/dev/cpu/0/cpuid bs=16 count=1 iflag=skip_bytes skip=$leaf 2>/dev/null | od -An -v -tx4
    done
  fi
  [ "$words" ] || { section cpuid-tool; cpuid -1 -r 2>/dev/null; } ;;
*)
  section capabilities
  perl -e '$n = hex(shift); open(F, "+<", "/dev/kvm") or exit; for (@ARGV) { print "$_ ", 0 + (ioctl(F, $n, 0 + $_) || 0), "\\n" }' \\
    $(case $(uname -m) in ppc*) echo 2000ae03 ;; *) echo ae03 ;; esac) ${Object.values(capabilities).join(' ')} 2>/dev/null ;;
esac
section end
`

function octal(bytes: Uint8Array): string {
  return [...bytes].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('')
}
