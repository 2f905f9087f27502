import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import * as z from 'zod'
import type { Machine } from '../../machine/machine.ts'
import { run } from '../../machine/run.ts'
import { errorCode } from '../../store/errno.ts'
import { NestvmError } from '../../store/error.ts'
import { credentialHelpers } from './settings.ts'

export type Credentials = { username: string; password: string } | { identityToken: string }

// docker's config.json and podman's auth.json (containers-auth.json(5)), which have one format.
const fileSchema = z.object({
  auths: z
    .record(z.string(), z.object({ auth: z.string().optional(), identitytoken: z.string().optional() }))
    .default({}),
  credHelpers: z.record(z.string(), z.string()).default({}),
  credsStore: z.string().optional(),
})

type AuthFile = z.infer<typeof fileSchema>

/**
 * What the user has for a registry by `podman login`, `docker login` or a helper program; undefined for none.
 * Throws `BAD_AUTH_FILE`, `BAD_REGISTRIES_CONF`, `CREDENTIAL_HELPER_FAILED`.
 */
export async function findCredentials(
  { registry, repository }: { registry: string; repository: string },
  machine: Machine,
  signal?: AbortSignal,
): Promise<Credentials | undefined> {
  for (const keeper of await credentialHelpers()) {
    const found =
      keeper === 'containers-auth.json'
        ? await findInFiles({ registry, repository }, machine, signal)
        : await askHelper(keeper, registry, machine, signal)
    if (found) return found
  }
  return undefined
}

async function findInFiles(
  { registry, repository }: { registry: string; repository: string },
  machine: Machine,
  signal?: AbortSignal,
): Promise<Credentials | undefined> {
  for (const path of authFiles()) {
    const file = await readAuthFile(path)
    if (file === undefined) continue
    const helper = file.credHelpers[registry]
    const found =
      (helper && (await askHelper(helper, registry, machine, signal))) ||
      entryFor(file, registry, repository, path) ||
      (file.credsStore && (await askHelper(file.credsStore, serverName(registry), machine, signal)))
    if (found) return found
  }
  return undefined
}

/** In the order that podman reads them. */
function authFiles(): string[] {
  const { REGISTRY_AUTH_FILE, XDG_RUNTIME_DIR, XDG_CONFIG_HOME, DOCKER_CONFIG } = process.env
  if (REGISTRY_AUTH_FILE) return [REGISTRY_AUTH_FILE]
  return [
    ...(XDG_RUNTIME_DIR ? [join(XDG_RUNTIME_DIR, 'containers/auth.json')] : []),
    join(XDG_CONFIG_HOME || join(homedir(), '.config'), 'containers/auth.json'),
    join(DOCKER_CONFIG || join(homedir(), '.docker'), 'config.json'),
  ]
}

async function readAuthFile(path: string): Promise<AuthFile | undefined> {
  try {
    return fileSchema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') return undefined
    // The message must not quote the file: it holds passwords.
    const what = errorCode(error) ?? (error instanceof z.ZodError ? 'it is not of the format of auth.json' : 'no JSON')
    throw new NestvmError('BAD_AUTH_FILE', `the credentials in ${path} cannot be used: ${what}`, { details: { path } })
  }
}

/** Entries of podman may be for a part of a registry: the longest one that fits counts. */
function entryFor(file: AuthFile, registry: string, repository: string, path: string): Credentials | undefined {
  const parts = `${registry}/${repository}`.split('/')
  const names = parts.map((_, index) => parts.slice(0, parts.length - index).join('/'))
  for (const name of [...names, ...aliases(registry)]) {
    const entry = file.auths[name]
    if (entry?.identitytoken) return { identityToken: entry.identitytoken }
    if (entry?.auth) return decode(entry.auth, path)
  }
  return undefined
}

/** docker writes addresses where podman writes hosts. */
function aliases(registry: string): string[] {
  const names = [`https://${registry}`, `https://${registry}/v1/`, `https://${registry}/v2/`, `http://${registry}`]
  return registry === 'docker.io' ? [serverName(registry), 'index.docker.io', ...names] : names
}

function serverName(registry: string): string {
  return registry === 'docker.io' ? 'https://index.docker.io/v1/' : registry
}

function decode(auth: string, path: string): Credentials {
  // docker pads passwords with NULs.
  const text = Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '')
  const colon = text.indexOf(':')
  if (colon > 0) return { username: text.slice(0, colon), password: text.slice(colon + 1) }
  throw new NestvmError('BAD_AUTH_FILE', `${path} has an entry that is no user and password`, { details: { path } })
}

const answerSchema = z.object({ Username: z.string(), Secret: z.string() })

/** The protocol of docker-credential-helpers: the server's name on stdin, JSON on stdout. */
async function askHelper(
  name: string,
  server: string,
  machine: Machine,
  signal?: AbortSignal,
): Promise<Credentials | undefined> {
  const program = `docker-credential-${name}`
  const fail = (what: string, cause?: unknown) =>
    new NestvmError('CREDENTIAL_HELPER_FAILED', `${program}, which the credentials are kept with, ${what}`, {
      hint: `install ${program}, or remove it from the auth file and log in again`,
      details: { program, server },
      cause,
    })
  if (!/^[\w.-]+$/.test(name)) throw fail('is no name of a program')
  try {
    const options = { input: server, allowFailure: true, timeoutMs: 30_000, signal }
    const { stdout, stderr, exit } = await run(machine, [program, 'get'], options)
    if (exit.code !== 0) {
      if (/credentials not found/i.test(stdout + stderr)) return undefined
      throw fail(`failed: ${(stdout || stderr).trim().slice(0, 200)}`)
    }
    const { Username, Secret } = answerSchema.parse(JSON.parse(stdout))
    if (Username === '' && Secret === '') return undefined
    return Username === '<token>' ? { identityToken: Secret } : { username: Username, password: Secret }
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof NestvmError && error.code === 'CREDENTIAL_HELPER_FAILED') throw error
    // What it wrote may be half a secret.
    const known = error instanceof NestvmError
    throw fail(
      known && error.code === 'NOT_FOUND' ? 'is not there' : 'gave no answer of its protocol',
      known ? error : undefined,
    )
  }
}
