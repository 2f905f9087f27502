import type { Item } from './items.ts'

/**
 * One shell script for all items, for a POSIX shell with what busybox has. Its argument is a word that nobody could
 * have written into a file: it begins the lines that come before and after each item. What an item writes to stderr
 * says why it has nothing, or what it has instead.
 */
export function gatherScript(items: readonly Item[]): string {
  return [
    preamble,
    'begin arch; uname -m',
    ...items.map(({ file, script }) => `item ${file} << 'EOI'\n${script}\nEOI`),
    'begin end',
  ].join('\n')
}

const preamble = `export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin:/usr/libexec"
mark=$1
exec 3>&1
begin() { printf '\\n%s begin %s\\n' "$mark" "$1"; }
item() {
  begin $1
  why=$(eval "$(cat)" 2>&1 >&3 3>&-)
  printf '\\n%s why %s\\n' "$mark" "$(printf %s "$why" | tail -c 500 | tr '\\n' ' ')"
}
no() { echo "$1" >&2; exit 1; }
need() { no "there is no $1 here"; }
instead() { echo "$1" >&2; }
first() { { tr '\\000' '\\n' < "$1/cmdline" | head -n 6; } 2>/dev/null; }
engines() {
  for f in $(grep -lsE '[q]emu-|[f]irecracker|[c]loud-hypervisor|[c]rosvm|[l]kvm' /proc/[0-9]*/cmdline); do
    d=\${f%/cmdline}
    first $d | grep -qE '(^|/)(qemu-system-[a-z0-9_-]+|qemu-kvm|kvm|firecracker|cloud-hypervisor|crosvm|lkvm)$' && echo $d
  done
}
own_qemus() {
  for name in qemu-system-x86_64 qemu-system-aarch64 qemu-system-s390x qemu-system-ppc64 qemu-kvm /usr/libexec/qemu-kvm; do
    path=$(command -v $name) && echo "$path: $($path --version 2>/dev/null | head -n 1)"
  done
}
# Of this user's processes only: no program of another user is run. The program may come after its loader's arguments.
running_qemus() {
  for d in $(engines); do
    [ -O $d/cmdline ] || continue
    set --
    for word in $(first $d); do
      set -- "$@" "$word"
      case $word in *qemu-system-*|*qemu-kvm) break ;; esac
    done
    case $1 in /*) echo "process \${d#/proc/}: $("$@" --version 2>/dev/null | head -n 1)" ;; esac
  done
}
`
