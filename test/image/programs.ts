import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { hostTools } from '../../src/bundle/architecture.ts'
import { ensureBundle } from '../../src/bundle/bundle.ts'
import { PackageSources } from '../../src/bundle/packages.ts'
import { locateLoader, type Tools } from '../../src/bundle/tools.ts'
import { locate, type Unpacked } from '../../src/bundle/unpack.ts'
import { hostArch } from '../../src/host/arch.ts'
import { LocalMachine } from '../../src/machine/local.ts'

export const machine = new LocalMachine()

/** Where packages for tests stay from one run to the next; `npm test` needs them once. */
const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'nestvm-tests')

export interface Programs {
  tools: Tools
  /** Each to be followed by its arguments. */
  registry: string[]
  unsquashfs: string[]
  /** A program for images: statically linked, so that it needs nothing beside it. */
  busybox: string
}

/** The bundle's tools, and from Debian a registry and what reads a squashfs; both run with their own libraries. */
export async function getPrograms(): Promise<Programs> {
  const arch = hostArch()
  const { tools } = await ensureBundle({ hostArch: arch, guestArch: arch, machine })
  await mkdir(cache, { recursive: true, mode: 0o700 })
  const scratch = await mkdtemp(join(cache, 'get-'))
  try {
    const sources = new PackageSources({ machine }, join(cache, 'apt'), scratch)
    const names = [
      'docker-registry',
      'busybox-static',
      ...hostTools.packages.filter((name) => name === 'squashfs-tools'),
    ]
    await sources.get([{ arch, packages: await sources.plan(arch, names) }])
    const root = await kept(sources.unpacked(arch))
    const loader = await locateLoader(root)
    const start = [loader, '--library-path', root.libraryDirs.join(':')]
    const program = async (name: string) => [...start, await locate(root, `usr/bin/${name}`)]
    const busybox = await locate(root, 'usr/bin/busybox', 'bin/busybox')
    return { tools, busybox, registry: await program('docker-registry'), unsquashfs: await program('unsquashfs') }
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

/** Under a name of its own while this process runs tests. */
async function kept(unpacked: Unpacked): Promise<Unpacked> {
  const dir = join(cache, 'root')
  await rm(dir, { recursive: true, force: true })
  await rename(unpacked.dir, dir)
  const libraryDirs = unpacked.libraryDirs.map((path) => join(dir, path.slice(unpacked.dir.length)))
  return { ...unpacked, dir, libraryDirs }
}

/** A TCP port of the loopback that nobody has. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}
