import { basename, join } from 'node:path'
import type { ContentDirectory } from '../bundle/manifest.ts'
import { apply, type Book } from '../enable/apply.ts'
import { type BootArgument, planBootArguments, updateGrub } from '../enable/grub.ts'
import { listJournals } from '../enable/journal.ts'
import { type CommandStep, commands, type Step, within } from '../enable/plan.ts'
import { look, type Seen } from '../enable/seen.ts'
import { planUndo, type UndoPlan } from '../enable/undo.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'

/** On which machine a kernel is installed, and in which root directory of it. */
export interface HostRequest {
  machine: Machine
  /** `/` unless it is the root directory of another system. */
  root: string
  signal?: AbortSignal
}

export interface InstallPlan {
  summary: string
  steps: readonly Step[]
  notes: readonly string[]
  book: Book
}

/** What installing a kernel changes, made from what was seen; changes nothing. Throws `NAME_TAKEN`. */
export async function planInstall(request: HostRequest, kernel: ContentDirectory): Promise<InstallPlan> {
  const { machine, root, signal } = request
  const seen = await look(machine, { root, signal })
  const { manifest } = kernel
  const release = manifest.kernelRelease ?? ''
  const book = { dir: journalDir(root), name: basename(kernel.dir) }
  const files = filesOf(kernel, release).map(({ from, to }) => ({ from, to: within(root, to) }))
  const absent = await whereAbsent(request, files)
  const boot = planBoot(seen, root, manifest.arch)
  if (absent.length === 0 && boot.steps.length === 0) {
    return { summary: `Linux ${release} is installed`, steps: [], notes: [], book }
  }
  const copies = absent.map(({ from, to }, index): CommandStep => {
    const remove = ['rm', '-f', '--', to]
    // The menu is made anew once all files are gone: of all that is taken back, the first step's part comes last.
    const after = root === '/' && index === 0 ? updateGrub(seen, []).map(({ argv }) => argv) : []
    const why = index === 0 ? `the kernel, Linux ${release}` : 'belongs to it'
    return {
      kind: 'command',
      argv: ['install', '-D', '-m', '644', '--', from, to],
      undo: [remove, ...after],
      undoAnyway: true,
      why,
    }
  })
  const prepare = commands(root, prepareCommands(release, seen))
  const menu = boot.steps.some(({ kind }) => kind === 'command')
    ? { steps: [], notes: [] }
    : commands(root, menuCommands(seen))
  return {
    summary: `Linux ${release} is installed beside the kernels that are there`,
    steps: [...copies, ...prepare.steps, ...boot.steps, ...menu.steps],
    notes: [...prepare.notes, ...boot.notes, ...menu.notes, ...advice(release, seen)],
    book,
  }
}

/** Carries it out. Throws `NEEDS_ROOT` before anything is done, and what `apply` throws. */
export async function install(request: HostRequest, { steps, book }: InstallPlan): Promise<void> {
  await requireRoot(request)
  await apply(request, book, { platform: 'kernel', steps })
}

/** What takes back all that was installed in a root directory. Throws `NOTHING_TO_UNDO`. */
export async function planUninstall({ machine, root, signal }: HostRequest): Promise<UndoPlan[]> {
  const dir = journalDir(root)
  const names = await listJournals(machine, dir, signal)
  if (names.length > 0) return Promise.all(names.map((name) => planUndo(machine, { dir, name }, signal)))
  throw new NestvmError('NOTHING_TO_UNDO', `there is nothing in ${dir} of kernels that nestvm has installed`, {
    hint: 'undo with the same --root',
  })
}

/** In another root directory writing will tell. */
export async function requireRoot({ machine, root, signal }: HostRequest): Promise<void> {
  const { uid, userName } = await look(machine, { root, signal })
  if (uid === 0 || root !== '/') return
  throw new NestvmError('NEEDS_ROOT', `only root can install a kernel on ${machine.name}, not ${userName}`, {
    hint: 'sudo nestvm kernel install-host DIRECTORY, with the directory that nestvm kernel ls --json names',
  })
}

const journalDir = (root: string) => join(root, 'var/lib/nestvm/kernel')

/** Where a host has a kernel's files. */
function filesOf({ dir }: ContentDirectory, release: string): { from: string; to: string }[] {
  return [
    { from: 'vmlinuz', to: `/boot/vmlinuz-${release}` },
    { from: 'config', to: `/boot/config-${release}` },
    { from: 'System.map', to: `/boot/System.map-${release}` },
    // By which depmod and modprobe know what is built in.
    { from: 'modules.builtin', to: `/lib/modules/${release}/modules.builtin` },
  ].map(({ from, to }) => ({ from: join(dir, from), to }))
}

/** The files that are not there. A release names all that its kernel was made of, so another file is nobody's of ours. */
async function whereAbsent({ machine, signal }: HostRequest, files: readonly { from: string; to: string }[]) {
  const script =
    'while [ $# -gt 0 ]; do if [ ! -e "$2" ]; then echo absent; elif cmp -s "$1" "$2"; then echo same; else echo other; fi; shift 2; done'
  const argv = ['sh', '-c', script, 'sh', ...files.flatMap(({ from, to }) => [from, to])]
  const { stdout } = await run(machine, argv, { signal, timeoutMs: 60_000 })
  const states = stdout.trim().split('\n')
  const other = files.find((_, index) => states[index] === 'other')
  if (other) {
    throw new NestvmError('NAME_TAKEN', `${other.to} is there already, and is another file`, {
      hint: 'remove it, or: nestvm kernel install-host --undo',
      details: { path: other.to },
    })
  }
  return files.filter((_, index) => states[index] === 'absent')
}

/** KVM on arm64 lets guests be hypervisors only when the kernel was told so at its start. */
function planBoot(seen: Seen, root: string, arch: string): { steps: readonly Step[]; notes: readonly string[] } {
  const wanted: BootArgument[] = arch === 'arm64' ? [{ name: 'kvm-arm.mode', value: 'nested' }] : []
  if (wanted.length === 0) return { steps: [], notes: [] }
  return planBootArguments(seen, root, wanted, 'KVM is to let guests be hypervisors')
}

function prepareCommands(release: string, { programs }: Seen): CommandStep[] {
  const depmod = ['depmod', release]
  const index = ['rm', '-rf', '--', `/lib/modules/${release}`]
  const ramdisk = (how: string) => ['update-initramfs', how, '-k', release]
  return [
    ...(programs.has('depmod')
      ? [
          {
            kind: 'command' as const,
            argv: depmod,
            undo: [index],
            undoAnyway: true,
            why: 'modprobe finds what is built in',
          },
        ]
      : []),
    ...(programs.has('update-initramfs')
      ? [
          {
            kind: 'command' as const,
            argv: ramdisk('-c'),
            undo: [ramdisk('-d')],
            why: 'the kernel finds the root file system by it',
          },
        ]
      : []),
  ]
}

/** Nothing takes it back by itself: see the first copy. */
function menuCommands(seen: Seen): CommandStep[] {
  const { programs, directories } = seen
  const grub = programs.has('update-grub') || directories.has('/boot/grub') || directories.has('/boot/grub2')
  return grub && !programs.has('grubby')
    ? updateGrub(seen, []).map((step) => ({ ...step, undo: [], why: 'GRUB offers it' }))
    : []
}

function advice(release: string, { programs }: Seen): string[] {
  return [
    ...(programs.has('grubby')
      ? [`to have it in the menu: kernel-install add ${release} /boot/vmlinuz-${release}`]
      : []),
    `GRUB starts the newest version by itself: choose Linux ${release} in its menu, or set GRUB_DEFAULT`,
    'the kernel has only the drivers that its profile asks for: those of this machine’s disks and network have to be among them',
  ]
}
