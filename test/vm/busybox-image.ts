import { buildImage, writeLayout } from '../image/images.ts'
import { guestFiles } from './guest-files.ts'

/** Makes an image of busybox with these applets in a directory; returns how it is named. */
export async function busyboxImage(dir: string, applets: readonly string[]): Promise<string> {
  const busybox = guestFiles('x86_64', /^bin\/busybox$/).get('bin/busybox')
  if (!busybox) throw new Error('the guests have no busybox')
  const files = [
    { path: 'bin/busybox', data: busybox, mode: 0o755 },
    ...applets.map((name) => ({ path: `bin/${name}`, type: 'symlink' as const, linkPath: 'busybox' })),
    ...['proc', 'sys', 'dev', 'data'].map((path) => ({ path, type: 'directory' as const })),
    { path: 'tmp', type: 'directory' as const, mode: 0o1777 },
    { path: 'etc/hello', data: 'hello from the image\n' },
  ]
  await writeLayout(dir, { latest: buildImage([files], { config: { Env: ['PATH=/bin'] } }) })
  return `oci:${dir}`
}
