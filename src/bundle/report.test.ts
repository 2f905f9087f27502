import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, beforeEach, test } from 'node:test'
import { dataPaths } from '../store/paths.ts'
import { createDirectory, currentDirectory, findDirectory, type Inputs, useDirectory } from './manifest.ts'
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
