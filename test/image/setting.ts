import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensureImage, type ImageRequest } from '../../src/image/image.ts'
import type { Image } from '../../src/image/record.ts'
import { run } from '../../src/machine/run.ts'
import { machine, type Programs } from './programs.ts'

/** A home of its own for each test, so that nothing is there and no settings of the user count. */
export async function newHome(): Promise<AsyncDisposable & { dir: string }> {
  const dir = await mkdtemp(join(tmpdir(), 'image-'))
  const before = { ...process.env }
  for (const name of ['DATA', 'CACHE', 'CONFIG', 'STATE'])
    process.env[`XDG_${name}_HOME`] = join(dir, name.toLowerCase())
  process.env.DOCKER_CONFIG = join(dir, 'docker')
  process.env.XDG_RUNTIME_DIR = dir
  for (const name of ['REGISTRY_AUTH_FILE', 'HTTPS_PROXY', 'HTTP_PROXY', 'NO_PROXY', 'SSL_CERT_FILE']) {
    delete process.env[name]
    delete process.env[name.toLowerCase()]
  }
  return {
    dir,
    [Symbol.asyncDispose]: async () => {
      process.env = before
      await rm(dir, { recursive: true })
    },
  }
}

export function pull(
  { tools }: Programs,
  reference: string,
  options: Partial<Omit<ImageRequest, 'reference'>> = {},
): Promise<Image> {
  return ensureImage({ reference, arch: 'x86_64', machine, tools, ...options })
}

/** What a squashfs holds: path to `MODE OWNER/GROUP SIZE-OR-DEVICE[ -> TARGET]`. */
export async function listSquashfs({ unsquashfs }: Programs, path: string): Promise<Record<string, string>> {
  const { stdout } = await run(machine, [...unsquashfs, '-lln', path])
  const found: Record<string, string> = {}
  for (const line of stdout.split('\n')) {
    const [, mode, owner, size, name, target = ''] =
      /^(\S{10}) (\d+\/\d+) +(\d+, *\d+|\d+) \S+ \S+ squashfs-root(.*?)( -> .*)?$/.exec(line) ?? []
    if (mode === undefined || name === undefined) continue
    const bytes = mode.startsWith('d') ? '' : ` ${size?.replace(/ /g, '')}`
    found[name === '' ? '/' : name] = `${mode} ${owner}${bytes}${target}`
  }
  return found
}

export async function readSquashfs({ unsquashfs }: Programs, squashfs: string, path: string): Promise<string> {
  const { stdout } = await run(machine, [...unsquashfs, '-cat', squashfs, path])
  return stdout
}
