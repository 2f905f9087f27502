import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, before, test } from 'node:test'
import { type ContentDirectory, createDirectory, useDirectory } from '../bundle/manifest.ts'
import { chosenKernel } from './choice.ts'
import { kernelInputs } from './identity.ts'
import { findKernel, listProfiles, removeKernels } from './list.ts'
import { loadProfile } from './profile.ts'

const dir = mkdtempSync(join(tmpdir(), 'kernels-'))
const profiles = join(dir, 'config/nestvm/profiles')
const variables = { XDG_CONFIG_HOME: join(dir, 'config'), XDG_DATA_HOME: join(dir, 'data') }
const given = Object.keys(variables).map((name) => [name, process.env[name]] as const)
const write = (name: string, text: string) => writeFileSync(join(profiles, name), text)
const example = `arch = "x86_64"
suite = "bookworm"
source = "linux-source-6.1"
base = "tinyconfig"
fragments = ["mine.config"]
arguments = "nokaslr"
`
before(() => {
  Object.assign(process.env, variables)
  mkdirSync(profiles, { recursive: true })
  write('mine.config', 'CONFIG_SMP=y\n')
  write('mine.toml', example)
})
after(() => {
  for (const [name, value] of given) {
    if (value === undefined) delete process.env[name]
    else process.env[name] = value
  }
  rmSync(dir, { recursive: true })
})

async function built(): Promise<ContentDirectory> {
  const source = { name: 'linux-source-6.1', version: '6.1.2-1', arch: 'all', sha256: 'a', size: 1, file: 'l.deb' }
  const inputs = kernelInputs(await loadProfile('mine'), [source])
  const kernel = await createDirectory(inputs, async (to) => {
    writeFileSync(join(to, 'vmlinuz'), 'x'.repeat(9000))
    return { kernelRelease: '6.1.2-nestvm' }
  })
  await useDirectory(kernel)
  return kernel
}
const mine = async () => (await listProfiles()).filter(({ profile }) => profile === 'mine' || profile === undefined)

test('a profile is listed whether its kernel is there or not, and one that is broken with what is wrong', async () => {
  assert.deepEqual(await mine(), [{ profile: 'mine', arch: 'x86_64', description: '', kernel: undefined }])
  await assert.rejects(chosenKernel('mine', 'x86_64'), { code: 'KERNEL_NOT_BUILT', hint: 'nestvm kernel build mine' })
  write('broken.toml', 'arch = "vax"\n')
  const broken = (await listProfiles()).find(({ profile }) => profile === 'broken')
  assert.match(broken?.problem ?? '', /cannot be used/)
  rmSync(join(profiles, 'broken.toml'))
})

test('guests get the kernel of the profile as it is now, with its arguments', async () => {
  const { dir: place } = await built()
  const name = basename(place)
  assert.deepEqual(await chosenKernel('mine', 'x86_64'), { name, arguments: 'nokaslr' })
  assert.deepEqual(await chosenKernel(join(profiles, 'mine.toml'), 'x86_64'), { name, arguments: 'nokaslr' })
  assert.equal(await chosenKernel('default', 'x86_64'), undefined)
  await assert.rejects(chosenKernel('mine', 'arm64'), { code: 'UNSUPPORTED_ARCH', exitStatus: 2 })
  await assert.rejects(chosenKernel('walk', 'x86_64'), { code: 'NO_SUCH_PROFILE' })
  write('mine.toml', `${example}engine = "firecracker"\n`)
  await assert.rejects(chosenKernel('mine', 'x86_64', 'qemu'), { code: 'UNSUPPORTED', exitStatus: 2 })
  assert.ok(await chosenKernel('mine', 'x86_64', 'firecracker'))
  write('mine.toml', example)
  const [listed] = await mine()
  assert.equal(listed?.kernel?.name, name)
  assert.equal(listed?.kernel?.release, '6.1.2-nestvm')
  assert.ok(Number(listed?.kernel?.bytes) >= 9000)
})

test('a kernel is found by its profile, its name and its directory', async () => {
  const { dir: place } = await built()
  for (const name of ['mine', basename(place), place]) assert.equal((await findKernel(name)).dir, place)
  await assert.rejects(findKernel('kernel-6.1.2-1-x86_64-0123456789abcdef'), { code: 'NO_SUCH_KERNEL' })
})

test('the kernel of a profile that was changed since is listed without it, and both can be removed', async () => {
  const old = await built()
  write('mine.config', 'CONFIG_SMP=y\nCONFIG_NET=y\n')
  await assert.rejects(chosenKernel('mine', 'x86_64'), { code: 'KERNEL_NOT_BUILT' })
  assert.deepEqual(
    (await mine()).map(({ profile, kernel }) => [profile, kernel?.name]),
    [
      ['mine', undefined],
      [undefined, basename(old.dir)],
    ],
  )
  const now = await built()
  assert.ok((await removeKernels([basename(old.dir).slice(0, -4)])) >= 9000)
  assert.ok(!existsSync(old.dir))
  assert.ok(existsSync(now.dir))
  await removeKernels(['mine'])
  await assert.rejects(chosenKernel('mine', 'x86_64'), { code: 'KERNEL_NOT_BUILT' })
  await assert.rejects(removeKernels(['mine']), { code: 'NO_SUCH_KERNEL' })
})
