import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { finished, Home } from '../vm/nestvm.ts'

/** Builds for real: the source's and the compiler's packages come from the mirror, 205 MB. */
const home = new Home()
const dir = mkdtempSync(join(tmpdir(), 'kernel-test-'))
const profile = join(dir, 'tiny-test.toml')
const fragment = join(dir, 'tiny.config')
const original = readFileSync(join(import.meta.dirname, 'tiny.config'), 'utf8')
before(() => {
  for (const name of ['tiny-test.toml', 'tiny.config']) cpSync(join(import.meta.dirname, name), join(dir, name))
})
after(async () => {
  await home.run(['kernel', 'rm', 'tiny-test'])
  await home[Symbol.asyncDispose]()
  rmSync(dir, { recursive: true })
})

interface Built {
  kernel: string
  release: string
  dir: string
  how: string
}
/** Compiling may take a busy machine half an hour. */
async function build(): Promise<Built> {
  const { status, stdout } = await home.run(['kernel', 'build', profile, '--json'], { timeoutMs: 45 * 60_000 })
  assert.equal(status, 0, stdout)
  return JSON.parse(stdout)
}
const work = () => join(String(home.env.XDG_CACHE_HOME), 'nestvm/kernel-work')
/** What a build has left in its directory besides downloads. */
const leftovers = () => (existsSync(work()) ? readdirSync(work()).filter((name) => name.startsWith('.')) : [])
const started = async (child: ChildProcess, words: RegExp) => {
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk
  })
  while (!words.test(said)) {
    assert.equal(child.exitCode, null, said)
    await sleep(100)
  }
}
/** Processes that work in the build's directory. */
const builders = () =>
  readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(work())
    } catch {
      return false
    }
  })

test('options that do not stick are told, each with what it needs, and nothing is left', async () => {
  writeFileSync(fragment, `${original}CONFIG_SQUASHFS=y\nCONFIG_NO_SUCH_OPTION=y\nCONFIG_HZ=1000\n`)
  const { status, stdout } = await home.run(['kernel', 'build', profile, '--json'])
  writeFileSync(fragment, original)
  assert.equal(status, 125)
  const { error } = JSON.parse(stdout)
  assert.equal(error.code, 'KERNEL_CONFIG', stdout)
  assert.deepEqual(error.details.reasons, [
    'CONFIG_SQUASHFS is not set rather than y: it needs MISC_FILESYSTEMS and BLOCK',
    'CONFIG_NO_SUCH_OPTION is not set rather than y: this kernel has no such option',
    'CONFIG_HZ is 100 rather than 1000: it cannot be chosen: other options decide it',
  ])
  assert.deepEqual(leftovers(), [])
})

test('Ctrl-C ends the compilers and leaves no kernel; a second build waits meanwhile', async () => {
  const before = await home.ok('kernel', 'ls')
  const first = home.start('kernel', 'build', profile)
  await started(first, /compiling/)
  const second = home.start('kernel', 'build', profile)
  await started(second, /another build of a kernel, process \d+/)
  second.kill('SIGINT')
  assert.equal((await finished(second)).status, 130)
  assert.ok(builders().length > 0)
  first.kill('SIGINT')
  assert.equal((await finished(first)).status, 130)
  assert.deepEqual(builders(), [])
  assert.deepEqual(leftovers(), [])
  assert.equal(await home.ok('kernel', 'ls'), before)
})

test('what a killed build has left is no kernel, and the next build removes it and builds one that guests boot', async () => {
  const killed = home.start('kernel', 'build', profile)
  await started(killed, /compiling/)
  killed.kill('SIGKILL')
  await finished(killed)
  assert.equal(leftovers().length, 1)
  const built = await build()
  assert.equal(built.how, 'built')
  assert.match(built.kernel, /^kernel-6\.1\.\d+-\d+-x86_64-[0-9a-f]{16}$/)
  assert.ok(built.release.endsWith(`-nestvm-${built.kernel.slice(-16, -4)}`), built.release)
  assert.deepEqual(leftovers(), [])
  const args = ['--kernel-profile', profile, '--no-snapshot', '--network', 'none', '--', 'uname', '-r']
  assert.equal(await home.ok('run', ...args), `${built.release}\n`)
})

test('a kernel that is there is taken at once and without the mirror, whatever its profile is called', async () => {
  const before = await build()
  assert.equal(before.how, 'present')
  const mirror = home.env.NESTVM_MIRROR
  home.env.NESTVM_MIRROR = 'file:/nowhere'
  assert.deepEqual(await build(), before)
  writeFileSync(fragment, `${original}# another input\n`)
  const other = await home.run(['run', '--kernel-profile', profile, '--', 'true'])
  assert.match(other.stderr, /as it is now, is not there/)
  assert.notEqual((await home.run(['kernel', 'build', profile])).status, 0)
  writeFileSync(fragment, original)
  home.env.NESTVM_MIRROR = mirror
  assert.deepEqual(await build(), before)
})

test('one that was built elsewhere is taken where its digest is right, and refused where it is not', async () => {
  const built = await build()
  const archive = join(dir, `${basename(built.dir)}.tar`)
  execFileSync('tar', ['-C', built.dir, '-cf', archive, '.'])
  await home.ok('kernel', 'rm', built.kernel)
  const digest = createHash('sha256').update(readFileSync(archive)).digest('hex')
  home.env.NESTVM_KERNEL_URL = `file://${dir}/{name}.tar#sha256=${'0'.repeat(64)}`
  const refused = await home.run(['kernel', 'build', profile, '--json'])
  assert.equal(JSON.parse(refused.stdout).error.code, 'KERNEL_DIGEST')
  home.env.NESTVM_KERNEL_URL = `file://${dir}/{name}.tar#sha256=${digest}`
  assert.deepEqual(await build(), { ...built, how: 'fetched' })
})
