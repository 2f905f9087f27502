// Pulls from a real registry on this host, of images made here.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { ImageProgressEvent } from '../../src/image/progress.ts'
import { listImages } from '../../src/image/record.ts'
import { pruneImages, removeImages } from '../../src/image/remove.ts'
import { run } from '../../src/machine/run.ts'
import { cachePaths, dataPaths } from '../../src/store/paths.ts'
import { buildImage, buildIndex, digestOf } from './images.ts'
import { getPrograms, machine, type Programs } from './programs.ts'
import { type Registry, startRegistry } from './registry.ts'
import { listSquashfs, newHome, pull, readSquashfs } from './setting.ts'

let programs: Programs
let registry: Registry
let dir: string

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'registry-'))
  programs = await getPrograms()
  registry = await startRegistry(programs, join(dir, 'open'))
})
after(async () => {
  await registry?.[Symbol.asyncDispose]()
  await rm(dir, { recursive: true })
})

const hello = [{ path: 'etc/hello', data: 'hello\n' }]

test('an image is pulled by tag and by digest, once, with all that its config says', async () => {
  await using _ = await newHome()
  const config = {
    ...{ Env: ['A=1'], Entrypoint: ['/init'], Cmd: null, WorkingDir: '/srv', User: 'www', StopSignal: 'SIGQUIT' },
    ...{ ExposedPorts: { '80/tcp': {} }, Volumes: { '/data': {} }, Labels: { a: 'b' } },
    Healthcheck: { Test: ['CMD', 'true'], Interval: 5e9 },
  }
  const accounts = [
    { path: 'etc/passwd', data: 'www:x:33:33::/srv:/bin/sh\n' },
    { path: 'usr/group', data: 'www:x:33:\n' },
    { path: 'etc/group', type: 'symlink' as const, linkPath: '../usr/group' },
  ]
  const digest = await registry.push('team/app', 'v1', buildImage([hello, accounts], { config }))
  const image = await pull(programs, `${registry.host}/team/app:v1`)
  assert.equal(image.manifestDigest, digest)
  assert.equal(image.reference, `${registry.host}/team/app:v1`)
  assert.equal(image.created, '2026-01-02T03:04:05Z')
  assert.equal(image.size, statSync(image.squashfs).size)
  assert.deepEqual(image.config, {
    ...{ entrypoint: ['/init'], cmd: [], env: ['A=1'], workdir: '/srv', user: 'www', stopSignal: 'SIGQUIT' },
    ...{ exposedPorts: ['80/tcp'], volumes: ['/data'], labels: { a: 'b' } },
    healthcheck: { test: ['CMD', 'true'], intervalMs: 5000 },
  })
  assert.equal(image.passwd, accounts[0]?.data)
  assert.equal(image.group, accounts[1]?.data)
  assert.equal(await readSquashfs(programs, image.squashfs, 'etc/hello'), 'hello\n')

  const asked: ImageProgressEvent[] = []
  const again = await pull(programs, `${registry.host}/team/app:v1`, { progress: (event) => asked.push(event) })
  assert.deepEqual(again, image)
  assert.deepEqual(asked, [])
  const byDigest = await pull(programs, `${registry.host}/team/app@${digest}`)
  assert.equal(byDigest.squashfs, image.squashfs)
  await assert.rejects(pull(programs, `${registry.host}/team/app@sha256:${'0'.repeat(64)}`), {
    code: 'IMAGE_NOT_FOUND',
  })
  await assert.rejects(pull(programs, `${registry.host}/team/app:v2`), { code: 'IMAGE_NOT_FOUND' })
  await assert.rejects(pull(programs, `${registry.host}/other`, { pull: 'never' }), {
    code: 'IMAGE_NOT_FOUND',
    hint: /image pull/,
  })
})

for (const format of ['oci', 'docker'] as const) {
  test(`of an index (${format}) the image for the architecture is taken`, async () => {
    await using _ = await newHome()
    const arm = buildImage([[{ path: 'arm' }]], { format, architecture: 'arm64', variant: 'v8' })
    const amd = buildImage([[{ path: 'amd' }]], { format })
    const attestation = buildImage([], { format, architecture: 'unknown' })
    const index = buildIndex({ 'unknown/unknown': attestation, 'linux/arm64/v8': arm, 'linux/amd64': amd }, format)
    await registry.push(`index-${format}`, 'latest', index)
    const name = `${registry.host}/index-${format}`
    assert.ok('/amd' in (await listSquashfs(programs, (await pull(programs, name)).squashfs)))
    assert.ok('/arm' in (await listSquashfs(programs, (await pull(programs, name, { arch: 'arm64' })).squashfs)))
    assert.equal((await listImages()).length, 2)
    await registry.push(`only-arm-${format}`, 'latest', arm)
    await assert.rejects(pull(programs, `${registry.host}/only-arm-${format}`), {
      code: 'IMAGE_NO_PLATFORM',
      message: /linux\/arm64\/v8/,
    })
  })
}

test('layers may be packed by zstd, or not at all, and the same layers give the same squashfs', async () => {
  await using _ = await newHome()
  const zstd = join(dir, 'layer.tar.zst')
  const image = buildImage([hello], {
    layerType: 'application/vnd.oci.image.layer.v1.tar+zstd',
    pack: (tar) => {
      writeFileSync(join(dir, 'layer.tar'), tar)
      return tar
    },
  })
  await run(machine, [...programs.tools.argv('zstd'), '-qf', join(dir, 'layer.tar'), '-o', zstd])
  const packed = buildImage([hello], {
    layerType: 'application/vnd.oci.image.layer.v1.tar+zstd',
    pack: () => readFileSync(zstd),
  })
  await registry.push('packed', 'zstd', packed)
  await registry.push('packed', 'plain', image)
  await registry.push('packed', 'gzip', buildImage([hello]))
  const digests = new Set<string>()
  for (const tag of ['zstd', 'plain', 'gzip']) {
    const { squashfs, digest } = await pull(programs, `${registry.host}/packed:${tag}`)
    digests.add(`${digest} ${digestOf(readFileSync(squashfs))}`)
    await removeImages([`${registry.host}/packed:${tag}`])
  }
  assert.equal(digests.size, 1)
})

test('a newer image of the same name is got when asked for; what nothing names any more is pruned', async () => {
  await using _ = await newHome()
  const name = `${registry.host}/moving`
  await registry.push('moving', 'latest', buildImage([hello]))
  const first = await pull(programs, name)
  await registry.push('moving', 'latest', buildImage([[{ path: 'new' }]]))
  assert.equal((await pull(programs, name)).digest, first.digest)
  const second = await pull(programs, name, { pull: 'always' })
  assert.notEqual(second.digest, first.digest)
  assert.ok((await pruneImages(false)).bytes > 0)
  assert.throws(() => statSync(first.squashfs))
  assert.equal((await listImages()).length, 1)
  await assert.rejects(removeImages(['nothing']), { code: 'IMAGE_NOT_FOUND' })
  await removeImages([second.digest.slice(0, 12)])
  assert.deepEqual(await listImages(), [])
  await pruneImages(true)
  assert.deepEqual(filesIn(dataPaths().images), [])
  assert.deepEqual(filesIn(cachePaths().downloads), [])
})

test('a registry with passwords takes those that are kept, and says how to log in', async () => {
  await using home = await newHome()
  await using closed = await startRegistry(programs, join(dir, 'closed'), { password: 'secret' })
  await closed.push('app', 'latest', buildImage([hello]))
  await assert.rejects(pull(programs, `${closed.host}/app`), { code: 'IMAGE_DENIED' })
  const keep = (password: string) =>
    writeFile(
      join(home.dir, 'docker/config.json'),
      JSON.stringify({ auths: { [closed.host]: { auth: Buffer.from(`user:${password}`).toString('base64') } } }),
    )
  await mkdir(join(home.dir, 'docker'))
  await keep('wrong')
  await assert.rejects(pull(programs, `${closed.host}/app`), { code: 'IMAGE_DENIED', hint: /login/ })
  await keep('secret')
  assert.ok((await pull(programs, `${closed.host}/app`)).size > 0)
})

test('tokens are got where the registry says, and renewed when they run out', async () => {
  await using _ = await newHome()
  await registry.push('tokens', 'latest', buildImage([hello]))
  let tokens = 0
  await using front = await proxy(registry, (request, response, self) => {
    if (request.url?.startsWith('/token')) {
      assert.match(request.url, /scope=repository%3Atokens%3Apull/)
      response.end(JSON.stringify({ token: `t${++tokens}` }))
      return true
    }
    // Each is good for one document.
    if (request.headers.authorization === `Bearer t${tokens}` && tokens > 0 && !request.url?.includes('used')) {
      if (!request.url?.includes('blobs')) return false
      if (tokens > 1) return false
    }
    response.writeHead(401, {
      'www-authenticate': `Bearer realm="http://${self}/token",service="test",scope="repository:tokens:pull"`,
    })
    response.end()
    return true
  })
  assert.ok((await pull(programs, `${front.host}/tokens`)).size > 0)
  assert.equal(tokens, 2)
})

test('a mirror is asked first; where it lacks the image, the registry is', async () => {
  await using home = await newHome()
  await registry.push('mirrored/app', 'latest', buildImage([hello]))
  await mkdir(join(home.dir, 'config/containers'), { recursive: true })
  await writeFile(
    join(home.dir, 'config/containers/registries.conf'),
    `[[registry]]\nlocation = "registry.invalid"\n[[registry.mirror]]\nlocation = "${registry.host}/mirrored"\n` +
      `[[registry]]\nlocation = "${registry.host}"\n[[registry.mirror]]\nlocation = "localhost:1234"\n`,
  )
  assert.equal((await pull(programs, 'registry.invalid/app')).reference, 'registry.invalid/app:latest')
  assert.ok((await pull(programs, `${registry.host}/mirrored/app`)).size > 0)
  await assert.rejects(pull(programs, 'registry.invalid/absent'), { code: 'REGISTRY_UNREACHABLE' })
})

test('a download that breaks off goes on from where it was, in the same pull and in a later one', async () => {
  await using _ = await newHome()
  const image = buildImage([[{ path: 'big', data: randomBytes(3_000_000) }]])
  await registry.push('broken', 'latest', image)
  const ranges: string[] = []
  let breaks = 2
  await using front = await proxy(registry, (request, response) => {
    if (!request.url?.includes('/blobs/') || request.headers.range === undefined) ranges.push('whole')
    else ranges.push(request.headers.range)
    if (breaks > 0 && request.url?.includes('/blobs/'))
      response.on('pipe', () => response.prependListener('drain', () => breaks-- > 0 && response.destroy()))
    return false
  })
  await pull(programs, `${front.host}/broken`)
  assert.ok(
    ranges.some((range) => /^bytes=\d{4,}-$/.test(range)),
    ranges.join(' '),
  )

  await pruneImages(true)
  const stop = new AbortController()
  const progress = ({ phase, bytesDone }: ImageProgressEvent) =>
    phase === 'download' && bytesDone > 1_000_000 && stop.abort()
  await assert.rejects(pull(programs, `${front.host}/broken`, { signal: stop.signal, progress }), {
    name: 'AbortError',
  })
  assert.deepEqual(filesIn(dataPaths().images), [])
  assert.ok(filesIn(cachePaths().downloads).some((name) => name.endsWith('.part')))
  const begin: number[] = []
  await pull(programs, `${front.host}/broken`, {
    progress: ({ phase, bytesDone }) => phase === 'download' && begin.push(bytesDone),
  })
  assert.ok((begin.find((bytes) => bytes > 1000) ?? 0) > 1_000_000)
})

test('of two pulls at once one waits, and both have the image', async () => {
  await using _ = await newHome()
  await registry.push('twice', 'latest', buildImage([[{ path: 'big', data: randomBytes(5_000_000) }]]))
  const phases: string[] = []
  const progress = ({ phase }: ImageProgressEvent) => phases.push(phase)
  const name = `${registry.host}/twice`
  const [one, other] = await Promise.all([pull(programs, name, { progress }), pull(programs, name, { progress })])
  assert.equal(one.squashfs, other.squashfs)
  assert.ok(phases.includes('wait'))
  assert.equal(filesIn(dataPaths().images).filter((file) => file.endsWith('.squashfs')).length, 1)
})

test('a layer that is not what its digest says is refused, and not kept', async () => {
  await using _ = await newHome()
  const image = buildImage([[{ path: 'x', data: randomBytes(100_000) }]])
  await registry.push('wrong', 'latest', image)
  const [, layer = ''] = [...image.blobs.keys()]
  const stored = join(registry.dir, 'docker/registry/v2/blobs/sha256', layer.slice(7, 9), layer.slice(7), 'data')
  const data = readFileSync(stored)
  writeFileSync(stored, Buffer.concat([Buffer.from('y'), data.subarray(1)]))
  await assert.rejects(pull(programs, `${registry.host}/wrong`), { code: 'IMAGE_BAD_DIGEST' })
  assert.ok(!filesIn(cachePaths().downloads).some((name) => name.includes(layer.slice(7))))
  truncateSync(stored, 50_000)
  await assert.rejects(pull(programs, `${registry.host}/wrong`), {
    code: /REGISTRY_UNREACHABLE|REGISTRY_BUSY|IMAGE_BAD_DIGEST/,
  })
})

test('a registry that is not there is told', async () => {
  await using _ = await newHome()
  await assert.rejects(pull(programs, 'localhost:1234/app'), {
    code: 'REGISTRY_UNREACHABLE',
    message: /localhost:1234.*ECONNREFUSED/,
  })
})

/** Stands before a registry; `handle` says whether it has answered itself. */
async function proxy(
  to: Registry,
  handle: (request: IncomingMessage, response: ServerResponse, host: string) => boolean,
) {
  let host = ''
  const server = createServer(async (request, response) => {
    if (handle(request, response, host)) return
    const { range, accept } = request.headers
    const headers = { ...(range ? { range } : {}), ...(accept ? { accept } : {}) }
    const answer = await fetch(`http://${to.host}${request.url}`, { method: request.method, headers })
    const { Readable } = await import('node:stream')
    response.writeHead(answer.status, Object.fromEntries(answer.headers))
    if (answer.body)
      Readable.fromWeb(answer.body)
        .on('error', () => {})
        .pipe(response)
    else response.end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  host = `127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
  return {
    host,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
    },
  }
}

function filesIn(path: string): string[] {
  try {
    const entries = readdirSync(path, { recursive: true, withFileTypes: true })
    return entries.filter((entry) => entry.isFile()).map(({ name }) => name)
  } catch {
    return []
  }
}
