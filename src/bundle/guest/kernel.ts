import { randomUUID } from 'node:crypto'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import type { Machine } from '../../machine/machine.ts'
import { run } from '../../machine/run.ts'
import { NestvmError } from '../../store/error.ts'
import { type Compression, kernelPayload } from '../kernel-image.ts'
import type { ContentDirectory } from '../manifest.ts'
import { loadOrder, moduleDependencies, moduleName, withoutSignature } from '../modules.ts'
import type { Tools } from '../tools.ts'
import { locate, onlyName, type Unpacked } from '../unpack.ts'

/** Decompresses with the bundle's own programs. */
export type Decompress = (data: Buffer, compression: Compression) => Promise<Buffer>

export interface Kernel {
  /** `uname -r`. */
  release: string
  /** For loaders that enter it without firmware: an ELF file on x86, the Image on arm64. */
  vmlinux: Buffer
  /** As packaged. */
  vmlinuz: Buffer
  /** The named modules and those they need, each after those it depends on. */
  modules(names: readonly string[]): Promise<Module[]>
}

export interface Module {
  name: string
  /** Decompressed, and without its signature. */
  data: Buffer
}

export async function readKernel(packages: Unpacked, decompress: Decompress): Promise<Kernel> {
  const modulesDir = await locate(packages, 'usr/lib/modules', 'lib/modules')
  const release = await onlyName(modulesDir)
  const image = await locate(packages, `boot/vmlinuz-${release}`, `usr/lib/modules/${release}/vmlinuz`)
  const vmlinuz = await readFile(image)
  const source = await moduleSource(join(modulesDir, release), decompress)
  return { release, vmlinuz, vmlinux: await unpackKernel(vmlinuz, decompress), modules: source }
}

/** The files of a kernel that was built: the image as its loaders take it, its configuration, what is built in. */
export const kernelFiles = { vmlinuz: 'vmlinuz', config: 'config', builtIn: 'modules.builtin' }

/** A kernel that was built, which has no modules. */
export interface BuiltKernel {
  release: string
  vmlinuz: Buffer
  /** By which modprobe knows what need not be loaded: modules.builtin. */
  builtIn: string
}

export async function builtKernel({ dir, manifest }: ContentDirectory): Promise<BuiltKernel> {
  return {
    release: manifest.kernelRelease ?? '',
    vmlinuz: await readFile(join(dir, kernelFiles.vmlinuz)),
    builtIn: await readFile(join(dir, kernelFiles.builtIn), 'utf8'),
  }
}

/** It as guests boot it. */
export async function asKernel({ release, vmlinuz }: BuiltKernel, decompress: Decompress): Promise<Kernel> {
  return { release, vmlinuz, vmlinux: await unpackKernel(vmlinuz, decompress), modules: async () => [] }
}

/** Through files in `scratch`: a program's output as `run` gives it is text. */
export function decompressor(machine: Machine, tools: Tools, scratch: string, signal?: AbortSignal): Decompress {
  return async (data, compression) => {
    if (compression === 'none') return data
    if (compression === 'gzip') return promisify(gunzip)(data)
    const output = join(scratch, randomUUID())
    const input = `${output}${suffixes[compression]}`
    await writeFile(input, data)
    await run(machine, [...tools.argv(compression), '-d', '-f', '-q', input], { signal, timeoutMs: 60_000 })
    const unpacked = await readFile(output)
    await Promise.all([input, output].map((path) => rm(path, { force: true })))
    return unpacked
  }
}

/** By which each program knows what to do, and what to call the result. */
const suffixes = { lz4: '.lz4', zstd: '.zst', xz: '.xz' }

async function unpackKernel(image: Buffer, decompress: Decompress): Promise<Buffer> {
  const payload = kernelPayload(image)
  const vmlinux = payload === undefined ? undefined : await decompress(payload.data, payload.compression)
  if (vmlinux !== undefined && vmlinux.length === payload?.size) return vmlinux
  throw new NestvmError('BAD_KERNEL', 'the kernel is neither a bzImage that can be unpacked nor an arm64 Image')
}

async function moduleSource(dir: string, decompress: Decompress): Promise<Kernel['modules']> {
  const files = (await readdir(dir, { recursive: true })).filter((path) => /\.ko(\.(xz|zst|gz))?$/.test(path))
  const paths = new Map(files.map((path) => [moduleName(path), join(dir, path)]))
  const builtIn = new Set((await readFile(join(dir, 'modules.builtin'), 'utf8')).split('\n').map(moduleName))
  const loaded = new Map<string, Buffer>()

  async function load(name: string): Promise<Buffer | undefined> {
    const path = paths.get(name)
    const data = loaded.get(name) ?? (path && (await decompress(await readFile(path), moduleCompression(path))))
    if (!data) return undefined
    const unsigned = withoutSignature(data)
    loaded.set(name, unsigned)
    return unsigned
  }
  return async (names) => {
    const order = await loadOrder(names, builtIn, async (name) => {
      const data = await load(name)
      return data && moduleDependencies(data)
    })
    return Promise.all(order.map(async (name) => ({ name, data: (await load(name)) ?? Buffer.alloc(0) })))
  }
}

function moduleCompression(path: string): Compression {
  const compressions: Record<string, Compression> = { '.xz': 'xz', '.zst': 'zstd', '.gz': 'gzip' }
  return compressions[path.slice(path.lastIndexOf('.'))] ?? 'none'
}
