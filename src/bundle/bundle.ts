import { join, resolve } from 'node:path'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { dataPaths } from '../store/paths.ts'
import { version } from '../store/version.ts'
import { type Arch, architecture, guestPackages, hostTools, suites } from './architecture.ts'
import { type GuestFiles, guestIn } from './guest/guest.ts'
import { containerScript, guestScripts } from './guest/scripts.ts'
import { layerBundle } from './layer-bundle.ts'
import { type ContentDirectory, currentDirectory, sha256 } from './manifest.ts'
import { type Recipes, type SetupRequest, setUp } from './setup.ts'
import { type Tools, toolsIn } from './tools.ts'

/** What `setup` gets once: QEMU for the host, and what guests boot from. */
export interface Bundle {
  /** Of all that went into it: guests made from bundles with one digest are the same. */
  digest: string
  tools: Tools
  guest: GuestFiles
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
  const { hostArch, guestArch, refresh, progress, signal } = request
  const ready = process.env.NESTVM_BUNDLE
  if (ready) return readyBundle(ready, hostArch, guestArch)
  const find = async () => (refresh ? undefined : await currentBundle(hostArch, guestArch))
  const found = await find()
  if (found !== undefined) return found

  const onWait = ({ pid }: { pid: number }) =>
    progress?.({ phase: 'wait', label: `another set-up, process ${pid}`, bytesDone: 0 })
  const get = async () => {
    const made = await find()
    if (made !== undefined) return made
    const { tools, guest } = await setUp(request, recipesFor(hostArch, guestArch))
    return bundleOf(tools, guest, hostArch, guestArch)
  }
  return withLock(join(dataPaths().bundle, 'lock'), get, { onWait, signal, timeoutMs: 60 * 60_000 })
}

/** The bundle if it is there, whole and of this version's recipe. Looks at names and sizes only: a few milliseconds. */
export async function currentBundle(hostArch: Arch, guestArch: Arch, dir?: string): Promise<Bundle | undefined> {
  const recipes = recipesFor(hostArch, guestArch)
  const [tools, guest] = await Promise.all([
    currentDirectory('tools', hostArch, recipes.tools, dir),
    currentDirectory('guest', guestArch, recipes.guest, dir),
  ])
  return tools && guest && bundleOf(tools, guest, hostArch, guestArch)
}

async function readyBundle(path: string, hostArch: Arch, guestArch: Arch): Promise<Bundle> {
  const dir = resolve(path)
  const { guest: recipe } = recipesFor(hostArch, guestArch)
  const layer = hostArch === guestArch ? await layerBundle(dir, guestArch, recipe) : undefined
  const found = layer ?? (await currentBundle(hostArch, guestArch, dir))
  if (found) return found
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
const revision = { tools: 1, guest: 4 }

function recipesFor(hostArch: Arch, guestArch: Arch): Recipes {
  const { kernel, modules, guestEmulators, ...host } = architecture(hostArch)
  const tools = [revision.tools, suites, hostTools, host]
  const guest = [
    revision.guest,
    suites,
    guestPackages,
    hostTools,
    architecture(guestArch),
    guestScripts(architecture(guestArch)),
    containerScript,
  ]
  return { tools: sha256(JSON.stringify(tools)), guest: sha256(JSON.stringify(guest)) }
}

/** A bundle that consists of these directories, of this or of another host. */
export function bundleOf(tools: ContentDirectory, guest: ContentDirectory, hostArch: Arch, guestArch: Arch): Bundle {
  return {
    digest: sha256(`${tools.manifest.digest} ${guest.manifest.digest}`),
    tools: toolsIn(tools.dir, hostArch),
    guest: guestIn(guest.dir, guestArch, guest.manifest.kernelRelease ?? ''),
  }
}
