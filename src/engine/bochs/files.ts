/** The files of one guest on Bochs, besides those that every engine has. */
export interface BochsFiles {
  configuration: string
  bootDisk: string
  /** Made by Bochs while it uses the disk. */
  bootDiskLock: string
  /** The directory of its network's switch, beside the sockets. */
  switchDir: string
}

/** The switch's directory and its socket, as Bochs is told them: it takes 15 bytes, and looks in its own directory. */
const switchName = 'wire'
export const switchSocket = `${switchName}/ctl`

export function bochsFiles(dir: string, socketDir: string): BochsFiles {
  return {
    configuration: `${dir}/bochsrc`,
    bootDisk: `${dir}/boot.img`,
    bootDiskLock: `${dir}/boot.img.lock`,
    switchDir: `${socketDir}/${switchName}`,
  }
}
