import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { lstat, open as openFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { EnvHttpProxyAgent, fetch } from 'undici'
import * as z from 'zod'
import { digestOf, type Inputs, sha256 } from '../bundle/manifest.ts'
import type { Progress } from '../bundle/progress.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { readJson } from '../store/write.ts'
import { kernelFileNames } from './files.ts'
import { kernelName } from './identity.ts'
import type { Profile } from './profile.ts'

interface PrebuiltRequest {
  machine: Machine
  profile: Profile
  inputs: Inputs
  scratch: string
  /** Gets the kernel's files. */
  dir: string
  progress?: Progress
  signal?: AbortSignal
  onNote?: (line: string) => void
}

/**
 * Gets a kernel that was built elsewhere from the same inputs, from where `NESTVM_KERNEL_URL` or the profile says; see
 * docs/kernels.md. Undefined where there is none. Throws `KERNEL_DIGEST` for one that is not what its SHA-256 says.
 */
export async function fetchPrebuilt(request: PrebuiltRequest): Promise<{ release: string } | undefined> {
  const { profile, inputs, scratch, dir, machine, progress, signal, onNote } = request
  const source = sourceOf(profile, kernelName(inputs))
  if (!source) return undefined
  const archive = join(scratch, 'kernel.tar')
  const label = `${kernelName(inputs)} from ${source.url}`
  try {
    const digest = source.sha256 ?? (await text(`${source.url}.sha256`, signal)).slice(0, 64)
    progress?.({ phase: 'download', label, bytesDone: 0 })
    await fetchChecked(source.url, digest, archive, signal)
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof NestvmError) throw error
    onNote?.(`${source.url} cannot be had, so the kernel is built: ${error instanceof Error ? error.message : error}`)
    return undefined
  }
  const names = [...kernelFileNames, 'manifest.json'].map((name) => `./${name}`)
  await run(machine, ['tar', '-C', dir, '-xf', archive, '--no-same-owner', ...names], { signal, timeoutMs: 60_000 })
  return { release: await checkFiles(dir, inputs, source.url) }
}

function sourceOf({ prebuilt }: Profile, name: string): { url: string; sha256?: string } | undefined {
  const [url, sha256] = process.env.NESTVM_KERNEL_URL?.split('#sha256=') ?? [prebuilt?.url, prebuilt?.sha256]
  return url ? { url: url.replaceAll('{name}', name), sha256 } : undefined
}

async function open(url: string, signal?: AbortSignal): Promise<Readable> {
  // A file that is not there is told of before there is one to write to, which would be made a little later.
  if (url.startsWith('file:')) return (await openFile(fileURLToPath(url))).createReadStream()
  // With it a connection ends when its answer is read.
  const dispatcher = new EnvHttpProxyAgent({ pipelining: 0 })
  const response = await fetch(url, { signal, dispatcher })
  if (!response.ok || !response.body) throw new Error(`the server says ${response.status}`)
  return Readable.fromWeb(response.body)
}

async function text(url: string, signal?: AbortSignal): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of await open(url, signal)) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks).toString()
}

async function fetchChecked(url: string, digest: string, path: string, signal?: AbortSignal): Promise<void> {
  const hash = createHash('sha256')
  await pipeline(
    await open(url, signal),
    async function* (chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        hash.update(chunk)
        yield chunk
      }
    },
    createWriteStream(path, { mode: 0o600 }),
    { signal },
  )
  const found = hash.digest('hex')
  if (found !== digest) throw wrong(url, `its SHA-256 is ${found} rather than ${digest}`)
}

const manifestSchema = z.object({
  digest: z.string(),
  kernelRelease: z.string(),
  files: z.array(z.object({ path: z.string(), sha256: z.string() })),
})

/** It says what it was made from, and its files have to be those that it tells of. */
async function checkFiles(dir: string, inputs: Inputs, url: string): Promise<string> {
  const manifest = await readJson(join(dir, 'manifest.json'), manifestSchema)
  if (manifest?.digest !== digestOf(inputs)) throw wrong(url, 'it was made from other inputs')
  for (const name of kernelFileNames) {
    const path = join(dir, name)
    const known = manifest.files.find((file) => file.path === name)
    const regular = (await lstat(path)).isFile()
    if (!regular || sha256(await readFile(path)) !== known?.sha256) throw wrong(url, `its ${name} is another one`)
  }
  return manifest.kernelRelease
}

function wrong(url: string, why: string): NestvmError {
  return new NestvmError('KERNEL_DIGEST', `the kernel at ${url} is not what it should be: ${why}`, {
    hint: 'ask whoever keeps it; nestvm kernel build --from-source builds it here',
    details: { url },
  })
}
