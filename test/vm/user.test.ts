import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, chownSync, cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { enginesOf, program } from './nestvm.ts'

/** `nobody` of Debian's base-passwd: an ordinary user that is always there, with no group of any use. */
const nobody = 65534

test('an ordinary user without a bundle gets one and sees a program run in a VM in a VM', { timeout: 900_000 }, (t) => {
  if (process.getuid?.() !== 0) return t.skip('all other tests run as an ordinary user already')
  const home = mkdtempSync(join(tmpdir(), 'nvt-user-'))
  try {
    // The checkout may lie where others may not look.
    cpSync(dirname(program), join(home, 'dist'), { recursive: true })
    chmodSync(home, 0o755)
    chownSync(home, nobody, nobody)
    const nestvm = (...args: string[]) =>
      spawnSync(process.execPath, [join(home, 'dist/nestvm.js'), ...args], {
        ...{ uid: nobody, gid: nobody, cwd: home, encoding: 'utf8', timeout: 800_000 },
        env: { HOME: home, PATH: process.env.PATH, XDG_RUNTIME_DIR: home },
      })
    const { status, stdout, stderr } = nestvm('run', '--depth', '2', '--', 'sh', '-c', 'echo "$(id -u) at $(hostname)"')
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^0 at vm-[0-9a-f]+-l2\n$/)
    assert.match(stderr, /download/i)
    const { totalBytes } = JSON.parse(nestvm('setup', '--json').stdout)
    assert.ok(totalBytes < 350e6, `${totalBytes} bytes on disk`)
    assert.match(nestvm('prune', '--all').stdout, /removed 0 ended machines, \d+ MB of bundles/)
    assert.equal(
      JSON.parse(
        execFileSync('du', ['-s', join(home, '.local/share/nestvm')], { encoding: 'utf8' }).split('\t')[0] ?? '',
      ) < 100,
      true,
    )
    assert.deepEqual(enginesOf(home), [])
  } finally {
    rmSync(home, { recursive: true, force: true })
  }
})
