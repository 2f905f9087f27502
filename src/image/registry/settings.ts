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
  insecure: z.boolean().optional(),
  'pull-from-mirror': z.enum(['all', 'digest-only', 'tag-only']).default('all'),
})

const registrySchema = z.object({
  prefix: z.string().optional(),
  location: z.string().optional(),
  insecure: z.boolean().optional(),
  blocked: z.boolean().default(false),
  'mirror-by-digest-only': z.boolean().default(false),
  mirror: z.array(mirrorSchema).default([]),
})

const fileSchema = z.object({
  registry: z.array(registrySchema).default([]),
  'credential-helpers': z.array(z.string()).optional(),
})

type RegistrySettings = z.infer<typeof registrySchema>

type SettingsFile = z.infer<typeof fileSchema>

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
  const settings = mostSpecific(await registrySettings(), name)
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
    endpoint(own, settings?.insecure),
  ]
}

function endpoint(name: string, insecure = isLoopback(hostOf(name))): Endpoint {
  const host = hostOf(name)
  const hub = host === 'docker.io'
  const path = name.slice(host.length + 1)
  return {
    // Docker Hub's registry has another name than its images.
    host: hub ? 'registry-1.docker.io' : host,
    repository: hub && !path.includes('/') ? `library/${path}` : path,
    insecure,
  }
}

function hostOf(name: string): string {
  return name.split('/')[0] ?? ''
}

/** As docker has it, unless registries.conf says otherwise: nothing that listens there is a stranger. */
function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$/.test(host)
}

function mostSpecific(all: readonly RegistrySettings[], name: string): RegistrySettings | undefined {
  const length = ({ prefix, location }: RegistrySettings) => (prefix ?? location ?? '').length
  return all.filter((settings) => applies(settings, name)).sort((a, b) => length(b) - length(a))[0]
}

function applies({ prefix, location }: RegistrySettings, name: string): boolean {
  const pattern = prefix ?? location ?? ''
  if (pattern.startsWith('*.')) return hostOf(name).endsWith(pattern.slice(1))
  return pattern !== '' && (name === pattern || name.startsWith(`${pattern}/`))
}

/**
 * The programs that keep credentials for all registries, in the order to ask; `containers-auth.json` stands for the
 * files of podman and docker. Throws `BAD_REGISTRIES_CONF`.
 */
export async function credentialHelpers(): Promise<string[]> {
  const named = (await readSettings()).map((file) => file['credential-helpers'])
  return named.findLast((helpers) => helpers !== undefined && helpers.length > 0) ?? ['containers-auth.json']
}

/** Drop-ins add to the main file, and replace what it says of the same prefix. */
async function registrySettings(): Promise<RegistrySettings[]> {
  const found = new Map<string, RegistrySettings>()
  for (const settings of (await readSettings()).flatMap(({ registry }) => registry)) {
    found.set(settings.prefix ?? settings.location ?? '', settings)
  }
  return [...found.values()]
}

/** Each file in the order that they count. Throws `BAD_REGISTRIES_CONF`. */
async function readSettings(): Promise<SettingsFile[]> {
  const { main, dropIns } = await files()
  const read = await Promise.all([...main, ...dropIns].map(readSettingsFile))
  return read.filter((file) => file !== undefined)
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

async function readSettingsFile(path: string): Promise<SettingsFile | undefined> {
  try {
    return fileSchema.parse(parse(await readFile(path, 'utf8')))
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    const what = error instanceof z.ZodError ? z.prettifyError(error) : error instanceof Error ? error.message : error
    throw new NestvmError('BAD_REGISTRIES_CONF', `${path} cannot be used: ${what}`, { details: { path }, cause: error })
  }
}
