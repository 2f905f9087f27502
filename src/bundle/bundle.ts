import { join, resolve } from 'node:path'
import type { Arch } from '../host/arch.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { dataPaths } from '../store/paths.ts'
import { version } from '../store/version.ts'
import { architecture, guestPackages, hostTools, suites } from './architecture.ts'
import { type GuestFiles, guestIn } from './guest/guest.ts'
import { containerScript, guestScripts } from './guest/scripts.ts'
import { layerBundle } from './layer-bundle.ts'
import {
  type ContentDirectory,
  currentDirectory,
  type KernelChoice,
  type Kind,
  kernelVariant,
  sha256,
} from './manifest.ts'
import { type Recipes, type SetupRequest, setUp } from './setup.ts'
import { type Tools, toolsIn } from './tools.ts'

/** What `setup` gets once: QEMU for the host, and what guests boot from. */
export interface Bundle {
  /** Of all that went into it: guests made from bundles with one digest are the same. */
  digest: string
  /** Of the guests. */
  arch: Arch
  tools: Tools
  guest: GuestFiles
  /** What it consists of, where it is not a mounted layer. */
  dirs: readonly string[]
}

/**
 * The bundle, which is got first where it is not there yet: that takes a minute and the network. `NESTVM_BUNDLE` names
 * one that is there, in a directory that is only read: a copy of another host's, or a mounted guest-hypervisor layer.
 * Safe to call from several processes at once. Throws `APT_MISSING`, `DPKG_DEB_MISSING`, `MIRROR_UNKNOWN`,
 * `MIRROR_UNREACHABLE`, `KEYRING_MISSING`, `BAD_SIGNATURE`, `DOWNLOAD_CORRUPT`, `PACKAGE_UNAVAILABLE`, `NO_SPACE`,
 * `BUNDLE_MISMATCH`, or the signal's reason; then nothing is left but lists and downloads in the cache, which the next
 * try goes on with.
 */
export async function ensureBundle(request: SetupRequest): Promise<Bundle> {
  const { hostArch, guestArch, kernel, refresh, progress, signal } = request
  const ready = process.env.NESTVM_BUNDLE
  if (ready) return readyBundle(ready, hostArch, guestArch, kernel)
  const find = async () => (refresh ? undefined : await currentBundle(hostArch, guestArch, { kernel }))
  const found = await find()
  if (found !== undefined) return found

  const onWait = ({ pid }: { pid: number }) =>
    progress?.({ phase: 'wait', label: `another set-up, process ${pid}`, bytesDone: 0 })
  const get = async () => {
    const made = await find()
    if (made !== undefined) return made
    return bundleOf(await setUp(request, recipesFor(hostArch, guestArch)), hostArch, guestArch)
  }
  return withLock(join(dataPaths().bundle, 'lock'), get, { onWait, signal, timeoutMs: 60 * 60_000 })
}

/** The bundle if it is there, whole and of this version's recipe. Looks at names and sizes only: a few milliseconds. */
export async function currentBundle(
  hostArch: Arch,
  guestArch: Arch,
  { bundle, kernel }: { bundle?: string; kernel?: KernelChoice } = {},
): Promise<Bundle | undefined> {
  const recipes = recipesFor(hostArch, guestArch)
  const found = await Promise.all([
    currentDirectory('tools', hostArch, recipes.tools, { bundle }),
    ...(guestArch === hostArch ? [] : [currentDirectory('emulator', guestArch, recipes.emulator, { bundle })]),
    currentDirectory('guest', guestArch, recipes.guest, { bundle, variant: kernel && kernelVariant(kernel) }),
  ])
  const parts = found.filter((part) => part !== undefined)
  return parts.length === found.length ? bundleOf(parts, hostArch, guestArch) : undefined
}

async function readyBundle(path: string, hostArch: Arch, guestArch: Arch, kernel?: KernelChoice): Promise<Bundle> {
  const dir = resolve(path)
  const { guest: recipe } = recipesFor(hostArch, guestArch)
  const layer = hostArch === guestArch ? await layerBundle(dir, guestArch, recipe) : undefined
  if (layer && kernel && layer.guest.kernel?.name !== kernel.name) {
    throw new NestvmError('UNSUPPORTED', 'the layer that NESTVM_BUNDLE names has another kernel', {
      hint: 'leave out --kernel-profile: guests in this one have its kernel',
      exitStatus: 2,
    })
  }
  const found = layer ?? (await currentBundle(hostArch, guestArch, { bundle: dir, kernel }))
  if (found) return { arch: guestArch, dirs: [found.tools.dir, found.guest.dir], ...found }
  throw new NestvmError(
    'BUNDLE_MISMATCH',
    `${dir}, which NESTVM_BUNDLE names, holds no whole bundle for ${guestArch} of this version of nestvm (${version})`,
    {
      hint: 'unset NESTVM_BUNDLE, or use the version of nestvm that made the bundle: in a guest, the one that started it',
      details: { path: dir, arch: guestArch },
    },
  )
}

/** To be raised when the code that makes the directories makes something else of the same inputs. */
const revision = { tools: 1, emulator: 1, guest: 4 }

function recipesFor(hostArch: Arch, guestArch: Arch): Recipes {
  const { kernel, modules, guestEmulators, ...host } = architecture(hostArch)
  const { emulator: program, emulatorPackages, firmware } = architecture(guestArch)
  const tools = [revision.tools, suites, hostTools, host]
  const emulator = [revision.emulator, suites, host.debian, program, emulatorPackages, firmware]
  const guest = [
    revision.guest,
    suites,
    guestPackages,
    hostTools,
    architecture(guestArch),
    guestScripts(architecture(guestArch)),
    containerScript(architecture(guestArch)),
  ]
  const digest = (recipe: unknown) => sha256(JSON.stringify(recipe))
  return { tools: digest(tools), emulator: digest(emulator), guest: digest(guest) }
}

/** A bundle that consists of these directories, of this or of another host. */
export function bundleOf(parts: readonly ContentDirectory[], hostArch: Arch, guestArch: Arch): Bundle {
  const part = (kind: Kind) => parts.find(({ manifest }) => manifest.kind === kind)
  const [tools, emulator, guest] = [part('tools'), part('emulator'), part('guest')]
  if (!tools || !guest) throw new RangeError('a bundle has tools and guest images')
  return {
    digest: sha256(parts.map(({ manifest }) => manifest.digest).join(' ')),
    arch: guestArch,
    tools: toolsIn(tools.dir, hostArch, guestArch, emulator?.dir),
    guest: guestIn(guest.dir, guestArch, guest.manifest),
    dirs: parts.map(({ dir }) => dir),
  }
}
