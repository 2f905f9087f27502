import { readdir, readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'smol-toml'
import * as z from 'zod'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'
import { formatReference, type RegistryReference } from '../reference.ts'

// containers-registries.conf(5), version 2: the file that podman, buildah and skopeo read.

const mirrorSchema = z.object({
  location: z.string(),
  insecure: z.boolean().default(false),
  'pull-from-mirror': z.enum(['all', 'digest-only', 'tag-only']).default('all'),
})

const registrySchema = z.object({
  prefix: z.string().optional(),
  location: z.string().optional(),
  insecure: z.boolean().default(false),
  blocked: z.boolean().default(false),
  'mirror-by-digest-only': z.boolean().default(false),
  mirror: z.array(mirrorSchema).default([]),
})

const fileSchema = z.object({ registry: z.array(registrySchema).default([]) })

type RegistrySettings = z.infer<typeof registrySchema>

/** A place that may have the image. */
export interface Endpoint {
  /** With its port. */
  host: string
  repository: string
  /** Certificates are not checked, and HTTP is taken where HTTPS is not spoken. */
  insecure: boolean
}

/** Where an image may be, in the order to try: mirrors, then the registry itself. Throws `IMAGE_BLOCKED`. */
export async function endpointsFor(reference: RegistryReference): Promise<Endpoint[]> {
  const name = `${reference.registry}/${reference.repository}`
  const settings = mostSpecific(await readSettings(), name)
  if (settings?.blocked) {
    throw new NestvmError('IMAGE_BLOCKED', `${formatReference(reference)} is blocked by registries.conf`)
  }
  const prefix = settings?.prefix ?? settings?.location ?? ''
  const rest = prefix.startsWith('*.') ? name.slice(reference.registry.length) : name.slice(prefix.length)
  const byDigest = reference.digest !== undefined
  const mirrors = (settings?.mirror ?? []).filter((mirror) => {
    const which = settings?.['mirror-by-digest-only'] ? 'digest-only' : mirror['pull-from-mirror']
    return which === 'all' || byDigest === (which === 'digest-only')
  })
  const own = prefix.startsWith('*.') || !settings?.location ? name : `${settings.location}${rest}`
  return [
    ...mirrors.map(({ location, insecure }) => endpoint(`${location}${rest}`, insecure)),
    endpoint(own, settings?.insecure ?? false),
  ]
}

function endpoint(name: string, insecure: boolean): Endpoint {
  const slash = name.indexOf('/')
  const host = slash < 0 ? name : name.slice(0, slash)
  const hub = host === 'docker.io'
  const path = name.slice(host.length + 1)
  return {
    // Docker Hub's registry has another name than its images.
    host: hub ? 'registry-1.docker.io' : host,
    repository: hub && !path.includes('/') ? `library/${path}` : path,
    insecure: insecure || isLoopback(host),
  }
}

/** As docker has it: nothing that listens there is a stranger. */
function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$/.test(host)
}

function mostSpecific(all: readonly RegistrySettings[], name: string): RegistrySettings | undefined {
  const length = ({ prefix, location }: RegistrySettings) => (prefix ?? location ?? '').length
  return all.filter((settings) => applies(settings, name)).sort((a, b) => length(b) - length(a))[0]
}

function applies({ prefix, location }: RegistrySettings, name: string): boolean {
  const pattern = prefix ?? location ?? ''
  if (pattern.startsWith('*.')) return (name.split('/')[0] ?? '').endsWith(pattern.slice(1))
  return pattern !== '' && (name === pattern || name.startsWith(`${pattern}/`))
}

/** Drop-ins add to the main file, and replace what it says of the same prefix. Throws `BAD_REGISTRIES_CONF`. */
async function readSettings(): Promise<RegistrySettings[]> {
  const { main, dropIns } = await files()
  const found = new Map<string, RegistrySettings>()
  for (const path of [...main, ...dropIns]) {
    for (const settings of (await readSettingsFile(path)) ?? []) {
      found.set(settings.prefix ?? settings.location ?? '', settings)
    }
  }
  return [...found.values()]
}

/** A user's file takes the place of the system's; CONTAINERS_REGISTRIES_CONF that of both and of the drop-ins. */
async function files(): Promise<{ main: string[]; dropIns: string[] }> {
  const named = process.env.CONTAINERS_REGISTRIES_CONF || process.env.REGISTRIES_CONFIG_PATH
  if (named) return { main: [named], dropIns: [] }
  const user = join(process.env.XDG_CONFIG_HOME || join(homedir(), '.config'), 'containers')
  const own = (await readSettingsFile(join(user, 'registries.conf'))) !== undefined
  const listed = await Promise.all(['/etc/containers', user].map((dir) => dropInsOf(join(dir, 'registries.conf.d'))))
  return { main: [join(own ? user : '/etc/containers', 'registries.conf')], dropIns: listed.flat() }
}

async function dropInsOf(dir: string): Promise<string[]> {
  const names = await readdir(dir).catch(() => [])
  return names
    .filter((name) => name.endsWith('.conf'))
    .sort()
    .map((name) => join(dir, name))
}

async function readSettingsFile(path: string): Promise<RegistrySettings[] | undefined> {
  try {
    return fileSchema.parse(parse(await readFile(path, 'utf8'))).registry
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    const what = error instanceof z.ZodError ? z.prettifyError(error) : error instanceof Error ? error.message : error
    throw new NestvmError('BAD_REGISTRIES_CONF', `${path} cannot be used: ${what}`, { details: { path }, cause: error })
  }
}
