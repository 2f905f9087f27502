import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Process } from '../../src/machine/machine.ts'
import { run } from '../../src/machine/run.ts'
import type { Certificate } from './certificates.ts'
import type { BuiltImage } from './images.ts'
import { freePort, machine, type Programs } from './programs.ts'

export interface Registry extends AsyncDisposable {
  /** `localhost:PORT` */
  host: string
  /** Where it keeps what was pushed. */
  dir: string
  push(repository: string, tag: string, image: BuiltImage): Promise<string>
}

interface RegistryOptions {
  /** Of `user`, who alone is let in. */
  password?: string
  /** Speaks TLS; with `clients` only to those who have a certificate of that authority. */
  tls?: Certificate & { clients?: string }
  /** Lets in whom this server gives a token, signed by a certificate of this authority. */
  token?: { realm: string; authority: string }
}

/** Debian's docker-registry on a free port of this host. What it holds is pushed without TLS and without a password. */
export async function startRegistry(
  { registry }: Programs,
  dir: string,
  options: RegistryOptions = {},
): Promise<Registry> {
  await mkdir(dir, { recursive: true })
  const data = join(dir, 'data')
  const back = await serve(registry, join(dir, 'back.yml'), data)
  const auth = await authOf(dir, options)
  const { tls } = options
  const front = tls || auth ? await serve(registry, join(dir, 'config.yml'), data, { tls, auth }) : back
  return {
    host: `localhost:${front.port}`,
    dir: data,
    push: (repository, tag, image) => push(`http://localhost:${back.port}/v2/${repository}`, tag, image),
    [Symbol.asyncDispose]: async () => {
      for (const { process } of new Set([front, back])) {
        process.kill('SIGKILL')
        await process.exited
      }
    },
  }
}

/** Its configuration is YAML, of which JSON is a part. */
async function serve(
  registry: readonly string[],
  config: string,
  data: string,
  { tls, auth }: { tls?: RegistryOptions['tls']; auth?: object } = {},
): Promise<{ port: number; process: Process }> {
  const port = await freePort()
  const settings = {
    version: '0.1',
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: data } },
    http: { addr: `127.0.0.1:${port}`, ...(tls ? { tls: tlsOf(tls) } : {}) },
    ...(auth ? { auth } : {}),
  }
  await writeFile(config, JSON.stringify(settings))
  const process = await machine.spawn([...registry, 'serve', config], { noInput: true })
  process.stdout.resume()
  process.stderr.resume()
  await listens(port)
  return { port, process }
}

function tlsOf({ cert, key, clients }: Certificate & { clients?: string }): object {
  return { certificate: cert, key, ...(clients ? { clientcas: [clients] } : {}) }
}

async function authOf(dir: string, { password, token }: RegistryOptions): Promise<object | undefined> {
  if (password !== undefined) return { htpasswd: { realm: 'test', path: await htpasswd(dir, password) } }
  if (token === undefined) return undefined
  const { realm, authority } = token
  return { token: { realm, service: 'registry', issuer: 'test', rootcertbundle: authority } }
}

async function push(base: string, tag: string, image: BuiltImage): Promise<string> {
  for (const [digest, data] of image.blobs) {
    const begin = await fetch(`${base}/blobs/uploads/`, { method: 'POST' })
    const place = new URL(begin.headers.get('location') ?? '', base)
    place.searchParams.set('digest', digest)
    const headers = { 'content-type': 'application/octet-stream' }
    const end = await fetch(place, { method: 'PUT', headers, body: new Uint8Array(data) })
    if (end.status !== 201) throw new Error(`${digest}: ${end.status} ${await end.text()}`)
  }
  for (const [index, { digest, mediaType, data }] of image.manifests.entries()) {
    const name = index === image.manifests.length - 1 ? tag : digest
    const answer = await fetch(`${base}/manifests/${name}`, {
      method: 'PUT',
      headers: { 'content-type': mediaType },
      body: new Uint8Array(data),
    })
    if (answer.status !== 201) throw new Error(`${mediaType}: ${answer.status} ${await answer.text()}`)
  }
  return image.manifests.at(-1)?.digest ?? ''
}

async function listens(port: number): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    const socket = connect(port, '127.0.0.1')
    const open = await once(socket, 'connect').then(
      () => true,
      () => false,
    )
    socket.destroy()
    if (open) return
    await sleep(50)
  }
  throw new Error(`nothing listens on port ${port}`)
}

/** The registry takes bcrypt only, which Perl's crypt (libcrypt) can make wherever Debian's tools run. */
async function htpasswd(dir: string, password: string): Promise<string> {
  const path = join(dir, 'htpasswd')
  const script = "print crypt($ARGV[0], '$2b$05$abcdefghijklmnopqrstuu')"
  const { stdout } = await run(machine, ['perl', '-e', script, password])
  await writeFile(path, `user:${stdout.trim()}\n`)
  await readFile(path)
  return path
}
