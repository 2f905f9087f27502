import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { run } from '../../src/machine/run.ts'
import type { BuiltImage } from './images.ts'
import { machine, type Programs } from './programs.ts'

export interface Registry extends AsyncDisposable {
  /** `localhost:PORT` */
  host: string
  /** Where it keeps what was pushed. */
  dir: string
  push(repository: string, tag: string, image: BuiltImage): Promise<string>
}

/** Debian's docker-registry on a free port of this host; with users when a password is given for `user`. */
export async function startRegistry({ registry }: Programs, dir: string, password?: string): Promise<Registry> {
  await mkdir(dir, { recursive: true })
  const port = await freePort()
  const host = `localhost:${port}`
  const auth =
    password === undefined ? '' : `auth:\n  htpasswd:\n    realm: test\n    path: ${await htpasswd(dir, password)}\n`
  const config = join(dir, 'config.yml')
  await writeFile(
    config,
    `version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: ${dir}/data\nhttp:\n  addr: 127.0.0.1:${port}\n${auth}`,
  )
  const server = await machine.spawn([...registry, 'serve', config], { noInput: true })
  server.stdout.resume()
  server.stderr.resume()
  const headers: Record<string, string> =
    password === undefined ? {} : { authorization: `Basic ${Buffer.from(`user:${password}`).toString('base64')}` }
  await answers(`http://${host}/v2/`)
  return {
    host,
    dir: join(dir, 'data'),
    push: (repository, tag, image) => push(`http://${host}/v2/${repository}`, tag, image, headers),
    [Symbol.asyncDispose]: async () => {
      server.kill('SIGKILL')
      await server.exited
    },
  }
}

async function push(base: string, tag: string, image: BuiltImage, headers: Record<string, string>): Promise<string> {
  for (const [digest, data] of image.blobs) {
    const begin = await fetch(`${base}/blobs/uploads/`, { method: 'POST', headers })
    const place = new URL(begin.headers.get('location') ?? '', base)
    place.searchParams.set('digest', digest)
    const type = { 'content-type': 'application/octet-stream' }
    const end = await fetch(place, { method: 'PUT', headers: { ...headers, ...type }, body: new Uint8Array(data) })
    if (end.status !== 201) throw new Error(`${digest}: ${end.status} ${await end.text()}`)
  }
  for (const [index, { digest, mediaType, data }] of image.manifests.entries()) {
    const name = index === image.manifests.length - 1 ? tag : digest
    const answer = await fetch(`${base}/manifests/${name}`, {
      method: 'PUT',
      headers: { ...headers, 'content-type': mediaType },
      body: new Uint8Array(data),
    })
    if (answer.status !== 201) throw new Error(`${mediaType}: ${answer.status} ${await answer.text()}`)
  }
  return image.manifests.at(-1)?.digest ?? ''
}

async function answers(url: string): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (
      await fetch(url).then(
        () => true,
        () => false,
      )
    )
      return
    await sleep(50)
  }
  throw new Error(`${url} does not answer`)
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

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}
