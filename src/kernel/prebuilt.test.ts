import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { digestOf, sha256 } from '../bundle/manifest.ts'
import { LocalMachine } from '../machine/local.ts'
import { run } from '../machine/run.ts'
import { kernelFileNames } from './files.ts'
import { kernelInputs, kernelName } from './identity.ts'
import { fetchPrebuilt } from './prebuilt.ts'
import type { Profile } from './profile.ts'

const profile: Profile = {
  ...{ name: 'p', path: '/p.toml', description: '', arch: 'x86_64', suite: 'bookworm', source: 'linux-source-6.1' },
  ...{ base: { target: 'tinyconfig' }, fragments: [], patches: [], arguments: '' },
}
const inputs = kernelInputs(profile, [
  { name: 'linux-source-6.1', version: '6.1.2-1', arch: 'all', sha256: 'a', size: 1, file: 'l.deb' },
])
const machine = new LocalMachine()
const served = new Map<string, Buffer>()
const server = createServer((request, response) => {
  const body = served.get(request.url ?? '')
  response.writeHead(body ? 200 : 404).end(body)
})
let scratch = ''
let base = ''
beforeEach(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'prebuilt-'))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterEach(async () => {
  delete process.env.NESTVM_KERNEL_URL
  served.clear()
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  rmSync(scratch, { recursive: true })
})

/** An archive of a kernel's directory, after `change` has done to it what it will. */
async function archive(change: (dir: string) => void = () => {}): Promise<Buffer> {
  const dir = join(scratch, 'from')
  mkdirSync(dir)
  for (const name of kernelFileNames) writeFileSync(join(dir, name), `the ${name}`)
  const files = kernelFileNames.map((path) => ({ path, sha256: sha256(`the ${path}`) }))
  const manifest = { digest: digestOf(inputs), kernelRelease: '6.1.2-nestvm', files }
  writeFileSync(join(dir, 'manifest.json'), JSON.stringify(manifest))
  change(dir)
  const path = join(scratch, 'served.tar')
  await run(machine, ['tar', '-C', dir, '-cf', path, '.'])
  return readFileSync(path)
}

async function get(more: Partial<Profile> = {}) {
  const dir = join(scratch, 'to')
  mkdirSync(dir, { recursive: true })
  const notes: string[] = []
  const onNote = (line: string) => void notes.push(line)
  const got = await fetchPrebuilt({ machine, profile: { ...profile, ...more }, inputs, scratch, dir, onNote })
  return { got, notes, dir }
}

const place = `/${kernelName(inputs)}.tar`
const digestFor = (data: Buffer) => createHash('sha256').update(data).digest('hex')

test('without a place to look at there is none', async () => {
  assert.deepEqual((await get()).got, undefined)
})

test('a kernel of the same inputs is taken, by the digest in the profile', async () => {
  const data = await archive()
  served.set(place, data)
  const { got, dir } = await get({ prebuilt: { url: `${base}/{name}.tar`, sha256: digestFor(data) } })
  assert.deepEqual(got, { release: '6.1.2-nestvm' })
  assert.equal(readFileSync(join(dir, 'vmlinuz'), 'utf8'), 'the vmlinuz')
})

test('the variable comes before the profile, and the digest may be beside the archive', async () => {
  const data = await archive()
  served.set(place, data)
  served.set(`${place}.sha256`, Buffer.from(`${digestFor(data)}  kernel.tar\n`))
  process.env.NESTVM_KERNEL_URL = `${base}/{name}.tar`
  assert.ok((await get({ prebuilt: { url: 'http://127.0.0.1:1/' } })).got)
  process.env.NESTVM_KERNEL_URL = `file://${scratch}/served.tar#sha256=${digestFor(data)}`
  assert.ok((await get()).got)
})

test('where there is no archive, or nobody answers, a note says so', async () => {
  for (const url of [`${base}/{name}.tar`, 'http://127.0.0.1:1/{name}.tar', 'file:///nowhere/{name}.tar']) {
    const { got, notes } = await get({ prebuilt: { url, sha256: '0'.repeat(64) } })
    assert.equal(got, undefined)
    assert.match(notes.join(), /cannot be had, so the kernel is built/)
  }
})

test('another archive than the digest’s is refused, and nothing of it is unpacked', async () => {
  served.set(place, await archive())
  const prebuilt = { url: `${base}/{name}.tar`, sha256: '0'.repeat(64) }
  await assert.rejects(get({ prebuilt }), { code: 'KERNEL_DIGEST' })
  assert.ok(!existsSync(join(scratch, 'to/vmlinuz')))
})

const wrong: Record<string, (dir: string) => void> = {
  'a kernel of other inputs': (dir) =>
    writeFileSync(
      join(dir, 'manifest.json'),
      readFileSync(join(dir, 'manifest.json'), 'utf8').replace(/"digest":"./, '"digest":"x'),
    ),
  'a file that its manifest does not tell of': (dir) => writeFileSync(join(dir, 'vmlinuz'), 'another'),
  'a link in the place of a file': (dir) => {
    rmSync(join(dir, 'vmlinuz'))
    symlinkSync('config', join(dir, 'vmlinuz'))
  },
}
for (const [what, change] of Object.entries(wrong)) {
  test(`${what} is refused, whatever the archive's digest`, async () => {
    const data = await archive(change)
    served.set(place, data)
    await assert.rejects(get({ prebuilt: { url: `${base}/{name}.tar`, sha256: digestFor(data) } }), {
      code: 'KERNEL_DIGEST',
    })
  })
}
