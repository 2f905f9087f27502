import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { type ContentDirectory, createDirectory } from '../bundle/manifest.ts'
import { undo } from '../enable/undo.ts'
import type { Arch } from '../host/arch.ts'
import { LocalMachine } from '../machine/local.ts'
import { run } from '../machine/run.ts'
import { install, planInstall, planUninstall } from './install-host.ts'

const given = process.env.XDG_DATA_HOME
let dir = ''
let root = ''
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'install-'))
  root = join(dir, 'root')
  process.env.XDG_DATA_HOME = join(dir, 'data')
  write('etc/default/grub', 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
  write('etc/default/grub.d/cloud.cfg', 'GRUB_TIMEOUT=1\n')
  write('boot/vmlinuz-6.1.0-1', 'another kernel')
})
afterEach(() => {
  if (given === undefined) delete process.env.XDG_DATA_HOME
  else process.env.XDG_DATA_HOME = given
  rmSync(dir, { recursive: true })
})

function write(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true })
  writeFileSync(join(root, path), text)
}

const release = '6.1.2-nestvm-0123456789ab'
function kernel(arch: Arch): Promise<ContentDirectory> {
  const inputs = { kind: 'kernel' as const, arch, recipe: 'r', packages: [], profile: 'p', version: '6.1.2-1' }
  return createDirectory(inputs, async (to) => {
    for (const name of ['vmlinuz', 'config', 'System.map', 'modules.builtin'])
      writeFileSync(join(to, name), `\xff${name}`)
    return { kernelRelease: release }
  })
}

const request = () => ({ machine: new LocalMachine(), root })
/** Every file below the root directory, with what is in it. */
const tree = () =>
  readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => [join(entry.parentPath, entry.name), readFileSync(join(entry.parentPath, entry.name), 'latin1')])
    .sort()

async function takeBack(): Promise<void> {
  for (const plan of await planUninstall(request())) await undo(new LocalMachine(), plan)
}

test('a plan changes nothing', async () => {
  const before = tree()
  const { steps } = await planInstall(request(), await kernel('x86_64'))
  assert.equal(steps.length, 4)
  assert.deepEqual(tree(), before)
})

test('the files are where a host has a kernel’s, for everyone to read, and all goes again', async () => {
  const before = tree()
  const built = await kernel('x86_64')
  await install(request(), await planInstall(request(), built))
  for (const path of [`boot/vmlinuz-${release}`, `boot/config-${release}`, `boot/System.map-${release}`]) {
    assert.ok(existsSync(join(root, path)), path)
  }
  const image = readFileSync(join(built.dir, 'vmlinuz'))
  assert.deepEqual(readFileSync(join(root, `boot/vmlinuz-${release}`)), image)
  assert.ok(existsSync(join(root, `lib/modules/${release}/modules.builtin`)))
  const { stdout } = await run(new LocalMachine(), ['stat', '-c', '%a', join(root, `boot/vmlinuz-${release}`)])
  assert.equal(stdout, '644\n')
  assert.equal(readFileSync(join(root, 'etc/default/grub'), 'utf8'), 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
  assert.deepEqual((await planInstall(request(), built)).steps, [])
  await takeBack()
  assert.deepEqual(tree(), before)
  await assert.rejects(takeBack(), { code: 'NOTHING_TO_UNDO' })
})

test('on arm64 GRUB gives the kernel kvm-arm.mode=nested, in a file of its own', async () => {
  const before = tree()
  await install(request(), await planInstall(request(), await kernel('arm64')))
  const text = readFileSync(join(root, 'etc/default/grub.d/zz-nestvm.cfg'), 'utf8')
  assert.match(text, /^GRUB_CMDLINE_LINUX_DEFAULT="\$GRUB_CMDLINE_LINUX_DEFAULT kvm-arm.mode=nested"$/m)
  await takeBack()
  assert.deepEqual(tree(), before)
})

test('another value is changed in its place, and is as it was again', async () => {
  write('etc/default/grub', 'GRUB_CMDLINE_LINUX="kvm-arm.mode=protected"\n')
  const before = tree()
  await install(request(), await planInstall(request(), await kernel('arm64')))
  assert.equal(readFileSync(join(root, 'etc/default/grub'), 'utf8'), 'GRUB_CMDLINE_LINUX="kvm-arm.mode=nested"\n')
  await takeBack()
  assert.deepEqual(tree(), before)
})

test('what was begun and not finished is taken back', async () => {
  // In the place of a directory that is to be made.
  write('lib/modules', 'a file')
  const before = tree()
  const plan = await planInstall(request(), await kernel('x86_64'))
  await assert.rejects(install(request(), plan), { code: 'COMMAND_FAILED' })
  assert.ok(existsSync(join(root, `boot/vmlinuz-${release}`)))
  await takeBack()
  assert.deepEqual(tree(), before)
})

test('another file of the same name is left alone', async () => {
  write(`boot/config-${release}`, 'somebody’s')
  await assert.rejects(planInstall(request(), await kernel('x86_64')), { code: 'NAME_TAKEN' })
})
