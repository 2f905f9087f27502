import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, beforeEach, test } from 'node:test'
import { dataPaths } from '../store/paths.ts'
import {
  createDirectory,
  currentDirectory,
  findDirectory,
  type Inputs,
  type KernelChoice,
  kernelDirectory,
  kernelVariant,
  listKernels,
  useDirectory,
} from './manifest.ts'
import { bundleReport, pruneBundles, removeBundles } from './report.ts'

const root = await mkdtemp(join(tmpdir(), 'bundle-'))
beforeEach(async () => {
  process.env.XDG_DATA_HOME = await mkdtemp(join(root, 'data-'))
  process.env.XDG_CACHE_HOME = join(process.env.XDG_DATA_HOME, 'cache')
})
after(() => rm(root, { recursive: true }))

const inputs = (recipe: string): Inputs => ({ kind: 'guest', arch: 'x86_64', recipe, packages: [] })
const make = (recipe: string) =>
  createDirectory(inputs(recipe), async (dir) => {
    await writeFile(join(dir, 'vmlinux'), 'k'.repeat(10_000))
    return { kernelRelease: '6.1' }
  })

test('a directory is current once it is said to be, for its recipe only', async () => {
  const made = await make('one')
  assert.equal(await currentDirectory('guest', 'x86_64', 'one'), undefined)
  await useDirectory(made)
  assert.deepEqual(await currentDirectory('guest', 'x86_64', 'one'), made)
  assert.equal(await currentDirectory('guest', 'x86_64', 'two'), undefined)
})

test('a directory with a file cut short or gone is not taken for whole, and can be made again', async () => {
  const { dir } = await make('one')
  await truncate(join(dir, 'vmlinux'), 5)
  assert.equal(await findDirectory(inputs('one')), undefined)
  await rm(join(dir, 'vmlinux'))
  assert.equal(await findDirectory(inputs('one')), undefined)
  await make('one')
  assert.equal((await findDirectory(inputs('one')))?.dir, dir)
})

test('a directory that could not be filled leaves nothing', async () => {
  const failing = createDirectory(inputs('one'), async (dir) => {
    await writeFile(join(dir, 'vmlinux'), '')
    throw new Error('no')
  })
  await assert.rejects(failing, /no/)
  assert.deepEqual(await readdir(dataPaths().bundle), [])
})

test('the report names each directory, what it takes, and whether it is current', async () => {
  await make('old')
  const { dir, manifest } = await make('new')
  await useDirectory({ dir, manifest })
  const report = await bundleReport()
  assert.deepEqual(
    report.directories.filter(({ current }) => current).map(({ path, kind, arch }) => ({ path, kind, arch })),
    [{ path: dir, kind: 'guest', arch: 'x86_64' }],
  )
  assert.equal(report.directories.length, 2)
  assert.ok(report.totalBytes >= 20_000)
  assert.equal(report.downloads, undefined)
})

test('pruning keeps what is current and nothing else', async () => {
  await make('old')
  const current = await make('new')
  await useDirectory(current)
  await pruneBundles()
  assert.deepEqual(
    (await bundleReport()).directories.map(({ path }) => path),
    [current.dir],
  )
  assert.ok(await currentDirectory('guest', 'x86_64', 'new'))
})

const makeKernel = async (profile: string, recipe: string) => {
  const inputs = { kind: 'kernel' as const, arch: 'x86_64' as const, recipe, packages: [], profile, version: '6.1.2-1' }
  const kernel = await createDirectory(inputs, async () => ({ kernelRelease: '6.1.2' }))
  await useDirectory(kernel)
  return kernel
}
const makeGuest = async (kernel: KernelChoice) => {
  const guest = await createDirectory({ ...inputs('one'), kernel }, async () => ({ kernelRelease: '6.1.2' }))
  await useDirectory(guest)
  return guest
}

test('guests with another kernel, or with other arguments for it, are beside those with Debian’s', async () => {
  const debian = await make('one')
  await useDirectory(debian)
  const { dir } = await makeKernel('nested', 'a')
  const plain = { name: basename(dir), arguments: '' }
  const guests = [await makeGuest(plain), await makeGuest({ ...plain, arguments: 'nokaslr' })]
  assert.equal(new Set([debian, ...guests].map((made) => made.dir)).size, 3)
  assert.deepEqual(await currentDirectory('guest', 'x86_64', 'one'), debian)
  for (const guest of guests) {
    const { kernel } = guest.manifest
    assert.ok(kernel)
    assert.deepEqual(await currentDirectory('guest', 'x86_64', 'one', { variant: kernelVariant(kernel) }), guest)
  }
})

test('pruning keeps the kernel of each profile as it was built last, and the guests with those kernels', async () => {
  const old = await makeKernel('nested', 'a')
  await makeGuest({ name: basename(old.dir), arguments: '' })
  const kernels = [await makeKernel('nested', 'b'), await makeKernel('mine', 'c')]
  const guest = await makeGuest({ name: basename(kernels[1]?.dir ?? ''), arguments: '' })
  await pruneBundles()
  assert.deepEqual(
    (await bundleReport()).directories.map(({ path }) => path),
    [...kernels, guest].map(({ dir }) => dir).sort(),
  )
  assert.deepEqual((await listKernels()).map(({ manifest }) => manifest.profile).sort(), ['mine', 'nested'])
  assert.equal((await kernelDirectory(basename(kernels[0]?.dir ?? ''))).manifest.recipe, 'b')
  await assert.rejects(kernelDirectory(basename(old.dir)), { code: 'NO_SUCH_KERNEL' })
  await assert.rejects(kernelDirectory('../elsewhere'), { code: 'NO_SUCH_KERNEL' })
})

test('removing leaves nothing', async () => {
  await useDirectory(await make('one'))
  await removeBundles()
  assert.deepEqual(await readdir(dataPaths().bundle), [])
  assert.deepEqual(await bundleReport(), { directories: [], totalBytes: 0 })
  assert.ok(!existsSync(join(process.env.XDG_CACHE_HOME ?? '', 'nestvm')))
})

test('where there is no bundle there is nothing to report or to remove', async () => {
  assert.deepEqual(await bundleReport(), { directories: [], totalBytes: 0 })
  await pruneBundles()
  await removeBundles()
})
