import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Home } from './nestvm.ts'

// The seed's "inception" test: nestvm in a guest of nestvm. One image serves all tests of this file.
const home = new Home()
const dir = join(home.dir, 'image')
const image = `oci:${dir}`
before(() => assert.match(makeImage(dir), /^oci:\S+ {2}sha256:[0-9a-f]{64}\n$/))
after(async () => {
  await home.run(['image', 'rm', image])
  await home[Symbol.asyncDispose]()
})

/** Packages stay in the user's own cache. */
function makeImage(to: string): string {
  const root = join(import.meta.dirname, '../..')
  const argv = ['--import', 'tsx', 'scripts/image.ts', to]
  return execFileSync(process.execPath, argv, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
}

test('the image is the same whenever it is made', () => {
  const again = join(home.dir, 'again')
  makeImage(again)
  const blobs = (layout: string) => readdirSync(join(layout, 'blobs/sha256')).sort()
  assert.deepEqual(blobs(again), blobs(dir))
})

test('nestvm runs in a guest of nestvm', async () => {
  const argv = ['run', '--nested', '--privileged', image, '--', 'nestvm', 'run', '--', 'echo', 'nested']
  assert.equal(await home.ok(...argv), 'nested\n')
})

test('one deeper, nestvm runs in a guest of a guest, on the KVM that it finds there', async () => {
  const outer = ['run', '--depth', '2', '--nested', '--privileged', image, '--']
  const inner = ['nestvm', 'run', '--json', '--', 'dmesg']
  const { stdout, levels } = JSON.parse(await home.ok(...outer, ...inner))
  assert.equal(levels.length, 1)
  assert.equal(levels[0].accel, 'kvm')
  assert.match(levels[0].accelReason, /a tiny 64-bit guest ran to its end through KVM/)
  assert.match(stdout, /Hypervisor detected: KVM/)
})

test('a bundle that is there already is used as it is, and one of another version is refused', async () => {
  const data = process.env.XDG_DATA_HOME ?? join(homedir(), '.local/share')
  const elsewhere = join(home.dir, 'data')
  const run = (bundle: string) => {
    Object.assign(home.env, { XDG_DATA_HOME: elsewhere, NESTVM_BUNDLE: bundle })
    return home.run(['run', '--dry-run', '--json', '--accel', 'tcg'])
  }
  try {
    const { status, stdout } = await run(join(data, 'nestvm/bundle'))
    assert.equal(status, 0)
    assert.ok(JSON.parse(stdout).levels[0].engineCommand[0].startsWith(join(data, 'nestvm/bundle')))
    const refused = await run(home.dir)
    assert.equal(refused.status, 125)
    assert.equal(JSON.parse(refused.stdout).error.code, 'BUNDLE_MISMATCH')
    assert.ok(!readdirSync(home.dir).includes('data'), 'nothing was got')
  } finally {
    Object.assign(home.env, { XDG_DATA_HOME: data, NESTVM_BUNDLE: '' })
  }
})
