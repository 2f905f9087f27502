// Set-ups as a user makes them, through this host's apt and the mirror that it is configured with.
import assert from 'node:assert/strict'
import { closeSync, existsSync, openSync, writeSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { currentBundle, ensureBundle } from '../../src/bundle/bundle.ts'
import type { ProgressEvent } from '../../src/bundle/progress.ts'
import { bundleReport, removeBundles } from '../../src/bundle/report.ts'
import { LocalMachine } from '../../src/machine/local.ts'
import { run } from '../../src/machine/run.ts'
import { errorCode } from '../../src/store/errno.ts'
import { cachePaths, dataPaths } from '../../src/store/paths.ts'

const machine = new LocalMachine()
const environment = { ...process.env }
const missing = existsSync('/usr/bin/apt-get') && existsSync('/usr/bin/dpkg-deb') ? false : 'needs apt and dpkg'
const root = process.getuid?.() === 0 ? missing : 'needs root, to mount a small file system'
const full = { skip: missing, timeout: 300_000 }
let dir: string

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'setup-'))
})
beforeEach(async () => useHome(await mkdtemp(join(dir, 'home-'))))
afterEach(() => {
  process.env = { ...environment }
})
after(() => rm(dir, { recursive: true }))

test('without apt the error says so, before anything is written', { skip: missing }, async () => {
  process.env.PATH = join(dir, 'path')
  await mkdir(process.env.PATH, { recursive: true })
  await symlink('/usr/bin/dpkg-deb', join(process.env.PATH, 'dpkg-deb'))
  await assert.rejects(setUp(), { code: 'APT_MISSING', hint: /install apt/ })
  await assertNothingMade()
})

test('without dpkg-deb the error says so, before anything is got', async () => {
  process.env.PATH = '/nonexistent'
  await assert.rejects(setUp(), { code: 'DPKG_DEB_MISSING', hint: /install dpkg/ })
  await assertNothingMade()
})

test('a mirror that is not there is told apart from other failures', { skip: missing }, async () => {
  for (const mirror of ['file:/nonexistent/debian', 'http://127.0.0.1:9/debian']) {
    process.env.NESTVM_MIRROR = mirror
    await assert.rejects(setUp(), { code: 'MIRROR_UNREACHABLE', hint: /NESTVM_MIRROR/ })
    assert.deepEqual(await readdir(dataPaths().bundle), [])
  }
})

test('what is no address is not taken for a mirror', { skip: missing }, async () => {
  process.env.NESTVM_MIRROR = 'file:/srv/debian [trusted=yes]'
  await assert.rejects(setUp(), { code: 'BAD_MIRROR' })
})

test('package lists signed by a key that is not in the keyring are refused', { skip: missing }, async () => {
  process.env.NESTVM_KEYRING = join(dir, 'other-keyring')
  await writeFile(process.env.NESTVM_KEYRING, strangersKey)
  await assert.rejects(setUp(), { code: 'BAD_SIGNATURE', hint: /NESTVM_KEYRING/ })
  await assertNothingMade()
})

test('an absent keyring is named with the package that has it', { skip: missing }, async () => {
  process.env.NESTVM_KEYRING = '/nonexistent.gpg'
  await assert.rejects(setUp(), { code: 'KEYRING_MISSING', message: /nonexistent/, hint: /debian-archive-keyring/ })
  await assertNothingMade()
})

test('a disk that is too small is noticed before anything is got', { skip: root }, async () => {
  await using disk = await smallDisk(100)
  await assert.rejects(setUp(), { code: 'NO_SPACE', hint: /prune/ })
  assert.deepEqual(await filesIn(disk.path), [])
})

for (const phase of ['lists', 'download', 'unpack', 'build'] as const) {
  test(`a disk that becomes full (${phase}) gives a clear error and leaves nothing`, {
    ...full,
    skip: root,
  }, async () => {
    await using disk = await smallDisk(1000)
    const fill = once(() => disk.fill())
    await assert.rejects(
      setUp((event) => event.phase === phase && fill()),
      { code: 'NO_SPACE', hint: /prune/ },
    )
    assert.deepEqual(await filesIn(disk.path), ['filling'])
  })
}

test('an interrupted set-up goes on where it stopped, and a finished one takes no time', full, async (context) => {
  const stop = new AbortController()
  const interrupted = setUp(
    ({ phase, bytesDone }) => phase === 'download' && bytesDone > 30e6 && stop.abort(),
    stop.signal,
  )
  await assert.rejects(interrupted, { name: 'AbortError' })
  assert.deepEqual(await leftovers(), [])
  assert.ok((await bundleReport()).downloads)

  const downloads: ProgressEvent[] = []
  const bundle = await setUp((event) => event.phase === 'download' && downloads.push(event))
  assert.ok(downloads.filter(({ bytesDone }) => bytesDone > 0).every(({ bytesDone }) => bytesDone > 15e6))
  const { totalBytes, downloads: kept, directories } = await bundleReport()
  assert.equal(kept, undefined)
  assert.ok(totalBytes < 350e6, `${totalBytes} bytes`)
  assert.ok(directories.every(({ current }) => current))
  context.diagnostic(`${Math.round(totalBytes / 1e6)} MB on disk`)

  const begin = performance.now()
  assert.equal((await setUp(() => assert.fail('nothing is to be done'))).digest, bundle.digest)
  assert.ok(performance.now() - begin < 500)

  const { stdout } = await run(machine, [...bundle.tools.qemuArgv(), '--version'])
  assert.match(stdout, /QEMU emulator version/)
  assert.match(bundle.guest.kernelRelease, /^\d+\.\d+/)
})

test('of two set-ups at once one waits for the other, and both have the same bundle', full, async (context) => {
  const begin = performance.now()
  const phases = [new Set<string>(), new Set<string>()]
  const bundles = await Promise.all(phases.map((seen) => setUp(({ phase }) => seen.add(phase))))
  assert.equal(bundles[0]?.digest, bundles[1]?.digest)
  const [waited, worked] = phases.sort((one, other) => one.size - other.size)
  assert.deepEqual([...(waited ?? [])], ['wait'])
  assert.ok(worked?.has('build') && !worked.has('wait'))
  context.diagnostic(`${Math.round((performance.now() - begin) / 1000)} s from nothing`)

  await removeBundles()
  assert.equal(await currentBundle('x86_64', 'x86_64'), undefined)
  await assertNothingMade()
})

test('the same packages give the same files, whatever the umask', full, async () => {
  const digests = async () => {
    const bundle = await ensureBundle({ hostArch: 'x86_64', guestArch: 'x86_64', machine, keepPackages: true })
    const { stdout } = await run(machine, ['sh', '-c', 'cd "$1" && sha256sum *', 'sh', bundle.guest.dir])
    await rm(dataPaths().bundle, { recursive: true })
    return stdout
  }
  const first = await digests()
  const mask = process.umask(0o077)
  try {
    assert.equal(await digests(), first)
  } finally {
    process.umask(mask)
  }
})

async function setUp(progress: (event: ProgressEvent) => unknown = () => {}, signal?: AbortSignal) {
  return ensureBundle({ hostArch: 'x86_64', guestArch: 'x86_64', machine, progress, signal })
}

function useHome(home: string): void {
  process.env.XDG_DATA_HOME = join(home, 'data')
  process.env.XDG_CACHE_HOME = join(home, 'cache')
}

async function assertNothingMade(): Promise<void> {
  assert.deepEqual(await filesIn(dataPaths().dir), [])
  assert.deepEqual(await filesIn(cachePaths().dir), [])
}

/** What has no meaning once a set-up has ended. */
async function leftovers(): Promise<string[]> {
  const files = [...(await filesIn(dataPaths().dir)), ...(await filesIn(cachePaths().dir))]
  return files.filter((file) => file.includes('.tmp'))
}

async function filesIn(path: string): Promise<string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch(() => [])
  return entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name)
}

/** A file system of so many MiB that the set-up works on. */
async function smallDisk(mebibytes: number) {
  const path = await mkdtemp(join(dir, 'disk-'))
  await run(machine, ['mount', '-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'none', path])
  useHome(path)
  return {
    path,
    // Synchronous, so that the set-up does not get ahead.
    fill: () => fillDisk(join(path, 'filling')),
    [Symbol.asyncDispose]: async () => void (await run(machine, ['umount', path])),
  }
}

function fillDisk(path: string): void {
  const file = openSync(path, 'w')
  const mebibyte = Buffer.alloc(1 << 20)
  try {
    while (writeSync(file, mebibyte) > 0);
  } catch (error) {
    assert.equal(errorCode(error), 'ENOSPC')
  } finally {
    closeSync(file)
  }
}

function once(fn: () => void): () => void {
  let called = false
  return () => {
    if (!called) fn()
    called = true
  }
}

/** A public key whose secret half was thrown away: nothing is signed with it. */
const strangersKey = `-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawEH+BYJKwYBBAHaRw8BAQdAlXfi0i5vWep033U+xRFYC6gPga//VeRgjcCJ
pI3RPhe0KW5lc3R2bSB0ZXN0LCBzaWducyBub3RoaW5nIDx0ZXN0QGludmFsaWQ+
iJAEExYIADgWIQTLWqiZLSq5vCGq8fFnEUS+FuoP+AUCawEH+AIbAwULCQgHAgYV
CgkICwIEFgIDAQIeAQIXgAAKCRBnEUS+FuoP+FESAP9hU1XDwkQyL9+fAPqZZh0Z
BcngKVrUzknuqjnQCPEEYwEA49wYbFm48sQcRdj2vu/J3WxXYzPIiaQt+xer09Ih
XAY=
=+Xxo
-----END PGP PUBLIC KEY BLOCK-----
`
