import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Bundle } from '../bundle/bundle.ts'
import type { Context } from '../stack/context.ts'
import { type ChainLevel, type LevelsResult, measureLevels, startChain } from './chain.ts'
import { benchDirectory } from './directory.ts'
import { compareLevels } from './levels-report.ts'
import { dropCaches } from './shell.ts'

interface BenchOptions {
  depth: number
  /** How often each is measured; the median counts. */
  repeat: number
}

/** Beyond what the CPU-bound slow-down explains. */
const mosts = { 2: 1.5, 3: 2 }

/** Times work with files in a volume at each level of one chain of guests. `print` gets lines for people on the way. */
export async function benchVolumes(
  context: Context,
  bundle: Bundle,
  { depth, repeat }: BenchOptions,
  print: (line: string) => void,
): Promise<LevelsResult> {
  await using dir = await benchDirectory()
  const given = async (level: number) => {
    const volume = join(dir.path, `${level}`)
    await fill(volume)
    return { volumes: [{ dir: volume, path: mounted, readOnly: false }] }
  }
  await using chain = await startChain(context, bundle, depth, given, print)
  const { cpu, measured } = await measureLevels(chain, (level) => timeWorks(level, repeat), print)
  const compared = works.map(({ what }, index) => {
    return { what, unit: 'ms' as const, values: measured.map((times) => times[index]) }
  })
  return { ...chain.host, works: compareLevels(cpu, compared, mosts) }
}

async function timeWorks({ shell }: ChainLevel, repeat: number): Promise<number[]> {
  await shell.run(prepare)
  const times: number[] = []
  for (const { script, cold } of works) {
    const before = () => (cold ? shell.run(dropCaches) : Promise.resolve())
    times.push(await shell.time(script, { repeat, before }))
  }
  return times
}

const mounted = '/volume'
const files = 200

/** What is only read comes from the host. */
async function fill(dir: string): Promise<void> {
  await mkdir(join(dir, 'many'), { recursive: true })
  await writeFile(join(dir, 'large'), randomBytes(8 << 20))
  for (let index = 0; index < files; index++) await writeFile(join(dir, 'many', `${index}`), `${index}`.repeat(20))
}

/** busybox knows no O_SYNC, so that synchronous writes go through a second, synchronous mount of the volume. */
const prepare = `mkdir -p /sync
read -r source path type options rest <<.
$(grep ' ${mounted} ' /proc/mounts)
.
cd ${mounted}/many && mount -i -t nfs4 -o $options,sync $source /sync && names=$(seq 0 ${files - 1})`

/** Each does all of its work in one program or in the shell itself: to start one costs 9 ms in an emulated guest. */
const works: readonly { what: string; script: string; cold?: boolean }[] = [
  { what: 'sync write, 32 times 64 KiB', script: 'dd if=/dev/zero of=/sync/synced bs=64k count=32 2>/dev/null' },
  {
    what: 'async write, 8 MiB and a flush',
    script: `dd if=/dev/zero of=${mounted}/written bs=64k count=128 conv=fsync 2>/dev/null`,
  },
  { what: 'read, 8 MiB, cold', script: `dd if=${mounted}/large of=/dev/null bs=64k 2>/dev/null`, cold: true },
  { what: `stat of ${files} files, cold`, script: 'stat -c %s $names >/dev/null', cold: true },
  { what: `open, read, close ${files} files, cold`, script: 'cat $names >/dev/null', cold: true },
  {
    what: '100 lines, an fsync after each',
    script: 'i=0; while [ $i -lt 100 ]; do echo $i; i=$((i + 1)); done >/sync/lines',
  },
]
