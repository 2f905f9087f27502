import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import type { Bundle } from './bundle.ts'
import { guestIn } from './guest/guest.ts'
import { createDirectory, type Kind } from './manifest.ts'
import { ensureRemoteBundle } from './remote.ts'

// To the code a machine is a machine: the other host is a directory of this one.
const machine = new LocalMachine()
const before = process.env.XDG_DATA_HOME
let dir: string
let remoteDir: string
let bundle: Bundle

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'remote-'))
  remoteDir = join(dir, 'bundle there')
  mkdirSync(remoteDir)
  process.env.XDG_DATA_HOME = join(dir, 'here')
  const [tools, guest] = [await make('tools'), await make('guest')]
  bundle = {
    ...{ digest: 'd', arch: 'x86_64', dirs: [tools, guest] },
    tools: { dir: tools, argv: (program) => [program], qemuArgv: () => [] },
    guest: guestIn(guest, 'x86_64', { kernelRelease: '6.1' }),
  }
})
afterEach(() => {
  rmSync(dir, { recursive: true })
  if (before === undefined) delete process.env.XDG_DATA_HOME
  else process.env.XDG_DATA_HOME = before
})

async function make(kind: Kind): Promise<string> {
  const made = await createDirectory({ kind, arch: 'x86_64', recipe: 'r', packages: [] }, async (path) => {
    mkdirSync(join(path, 'a dir'))
    writeFileSync(join(path, 'a dir/file'), kind.repeat(100_000))
    writeFileSync(join(path, 'empty'), '')
    return {}
  })
  return made.dir
}

const request = (signal = new AbortController().signal) => {
  return { local: machine, remote: machine, remoteDir, signal }
}

test('a bundle is copied once, as it is', async () => {
  const labels = new Set<string>()
  const progress = ({ label }: { label: string }) => void labels.add(label)
  const there = await ensureRemoteBundle(bundle, 'x86_64', { ...request(), progress })
  assert.equal(there.guest.dir, join(remoteDir, basename(bundle.guest.dir)))
  assert.equal(readFileSync(join(there.guest.dir, 'a dir/file'), 'utf8'), 'guest'.repeat(100_000))
  assert.equal(labels.size, 2)
  await ensureRemoteBundle(bundle, 'x86_64', { ...request(), progress: () => assert.fail('copied again') })
})

test('a file that is cut short there is mended, and what a killed copy left is removed', async () => {
  const there = await ensureRemoteBundle(bundle, 'x86_64', request())
  truncateSync(join(there.tools.dir, 'a dir/file'), 10)
  mkdirSync(join(remoteDir, '.copy-4194305'))
  await ensureRemoteBundle(bundle, 'x86_64', request())
  assert.equal(readFileSync(join(there.tools.dir, 'a dir/file'), 'utf8'), 'tools'.repeat(100_000))
  assert.deepEqual(
    readdirSync(remoteDir).sort(),
    [bundle.guest.dir, bundle.tools.dir].map((path) => basename(path)),
  )
})

test('a copy that is broken off shows nothing, and the next one is whole and alone', async () => {
  const stop = new AbortController()
  const progress = () => stop.abort(new Error('enough'))
  await assert.rejects(ensureRemoteBundle(bundle, 'x86_64', { ...request(stop.signal), progress }), /enough/)
  assert.deepEqual(
    readdirSync(remoteDir).filter((name) => !name.startsWith('.')),
    [],
  )
  await ensureRemoteBundle(bundle, 'x86_64', request())
  assert.equal(readdirSync(remoteDir).length, 2)
})
